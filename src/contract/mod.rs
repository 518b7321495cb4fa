//! Contract suites: hand in an implementation of one of the library's traits, and hear which clause of its documentation it breaks.
//!
//! | trait | suite | with a `Result` |
//! |---|---|---|
//! | [`page_db::PageHash`] | [`page_hash`] | [`check_page_hash`] |
//! | [`page_db::PhysMem`] | [`phys_mem`] | [`check_phys_mem`] |
//! | [`page_db::Vnode`] | [`vnode`](fn@vnode) | [`check_vnode`] |
//! | [`addr_space::Hat`] | [`hat`](fn@hat) | [`check_hat`] |
//! | [`addr_space::SegOps`] | [`seg_ops`] | [`check_seg_ops`] |
//! | [`hat_x86::Mmu`] | [`mmu`] | [`check_mmu`] |
//! | [`swapfs::SwapDevice`] | [`swap_device`] | [`check_swap_device`] |
//! | [`swapfs::SwapDevice::medium`] of two devices | [`swap_media`] | [`check_swap_media`] |
//!
//! Not every driver, vnode or hat can do everything: a case says what its subject can, and what it cannot the suite wants refused, or leaves open, as the
//! trait documents it.
//!
//! A suite goes through life cycle, failure and concurrency with the trait's own calls, and stops at the first clause that does not hold:
//! the [`Breach`] names the implementation, the clause, and what was seen. How suites are built is told in [`page_db::contract`]; each lives in the
//! crate that owns its trait, needs no facade, and (threads apart) builds without `std`.
//!
//! # Your own device
//!
//! ```
//! use page_db::{Counters, CpuId, Cx, HostMem, Pfn, PhysMem, SpinHooks, ThreadId};
//! use segvm::contract::{check_swap_device, swap_device};
//! use std::sync::{Arc, Mutex};
//! use swapfs::{DeviceError, DeviceOp, SwapDevice};
//!
//! /// Pages in a vector; with `lazy`, one that takes no second write to a page.
//! #[derive(Debug)]
//! struct Ram { bytes: Mutex<Vec<Option<[u8; 4096]>>>, lazy: bool }
//!
//! impl Ram {
//!     fn fits(&self, op: DeviceOp, page: u64, n: usize) -> Result<(), DeviceError> {
//!         let end = page.checked_add(n as u64);
//!         let fits = end.is_some_and(|end| end <= self.pages());
//!         if fits { Ok(()) } else { Err(DeviceError { op, page, errno: page_db::errno::ENXIO }) }
//!     }
//! }
//!
//! impl SwapDevice for Ram {
//!     fn name(&self) -> String {
//!         "ram".into()
//!     }
//!     fn pages(&self) -> u64 {
//!         64
//!     }
//!     fn read(&self, _cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
//!         self.fits(DeviceOp::Read, page, 1)?;
//!         mem.write(to, 0, &self.bytes.lock().unwrap()[page as usize].unwrap_or([0; 4096]));
//!         Ok(())
//!     }
//!     fn write(&self, _cx: &Cx, page: u64, from: &[Pfn], mem: &dyn PhysMem) -> Result<(), DeviceError> {
//!         self.fits(DeviceOp::Write, page, from.len())?;
//!         for (at, pfn) in (page as usize..).zip(from) {
//!             let mut bytes = [0; 4096];
//!             mem.read(*pfn, 0, &mut bytes);
//!             let slot = &mut self.bytes.lock().unwrap()[at];
//!             if slot.is_none() || !self.lazy {
//!                 *slot = Some(bytes);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mem = HostMem::new(Pfn(1), 16)?;
//! let cx = &Cx::new(&Counters::new(1), CpuId(0), ThreadId(1), Arc::new(SpinHooks));
//! let ram = |lazy| Ram { bytes: Mutex::new(vec![None; 64]), lazy };
//! swap_device(cx, &ram(false), &mem, None); // in a test: panics with the breach
//!
//! let breach = check_swap_device(cx, &ram(true), &mem, None).unwrap_err();
//! assert_eq!(breach.clause, "a page holds what was last written to it");
//! assert!(breach.to_string().starts_with("SwapDevice `ram` breaks the clause"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use addr_space::contract::{
    HatCase, SegCan, SegCase, UseTranslation, check_hat, check_seg_ops, hat, seg_ops,
};
pub use hat_x86::contract::{MmuCase, check_mmu, mmu};
pub use page_db::contract::{
    Breach, Judge, Transfer, VnodeCase, check_page_hash, check_phys_mem, check_vnode, page_hash,
    phys_mem, vnode,
};
pub use swapfs::contract::{check_swap_device, check_swap_media, swap_device, swap_media};
