//! Memory as a whole: page-out by hand, taking frames away, swap areas that come and go. Waiting for memory is in `daemons.rs`.

use super::Machine;
use super::builder::{SwapArea, SwapBacking};
use super::process::Process;
use page_db::pageout::{PageoutState, ScanReport};
use page_db::{LockedPage, MemoryTries, Reserve};
use std::sync::Arc;
use swapfs::{AreaId, DeviceError, FileDevice, MemDevice, SwapDevice, SwapError};

/// Why a swap area could not be added or removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwapCtlError {
    /// The device could not be opened.
    #[error("swap on `{path}`: {source}")]
    Device {
        /// Which.
        path: String,
        /// Why.
        source: DeviceError,
    },
    /// Swap refused.
    #[error(transparent)]
    Swap(#[from] SwapError),
}

impl SwapCtlError {
    /// The number `swapctl` reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Device { source, .. } => source.errno,
            Self::Swap(e) => e.errno(),
        }
    }
}

impl Machine {
    /// Moves the hands of the clock by `turns` frames and pushes what they found; no further than past three revolutions in which nothing went.
    pub fn scan(&self, turns: u64) -> ScanReport {
        self.parts().pageout.step(self.cx(), self.db(), turns)
    }
    /// What one quarter of a second of a running system does about memory.
    #[doc(alias = "schedpaging")]
    pub fn pageout_interval(&self) -> ScanReport {
        self.parts().pageout.run(self.cx(), self.db())
    }
    /// Evicts whatever can be evicted.
    pub fn pageout_all(&self) -> ScanReport {
        self.parts().pageout.reclaim_all(self.cx(), self.db())
    }
    /// Where page-out stands.
    pub fn pageout_state(&self) -> PageoutState {
        self.parts().pageout.state(self.cx(), self.db())
    }

    /// Takes `frames` frames away, as if something else used them, evicting pages to get them; says how many could be had.
    pub fn squeeze(&self, frames: u64) -> u64 {
        let (cx, db) = (self.cx(), self.db());
        for taken in 0..frames {
            if !db.free_mem().reserve_kernel(1) {
                return taken;
            }
            let mut tries = MemoryTries::new(1, 1);
            let page = loop {
                match db.alloc(cx, taken, Reserve::Normal) {
                    Ok(page) => break Some(page),
                    Err(_) if tries.wait(cx, db).is_ok() => {}
                    Err(_) => break None,
                }
            };
            let Some(page) = page else {
                db.free_mem().uncharge(1);
                return taken;
            };
            db.set_kernel(&page, true);
            self.parts().squeezed.lock_host().push(page.id());
            drop(page);
        }
        frames
    }
    /// Gives back every frame taken away; says how many.
    pub fn release(&self) -> u64 {
        let (cx, db) = (self.cx(), self.db());
        let frames = std::mem::take(&mut *self.parts().squeezed.lock_host());
        for id in &frames {
            let page = db.lock_excl(cx, *id);
            db.set_kernel(&page, false);
            db.free(cx, page, false);
            db.free_mem().uncharge(1);
        }
        frames.len() as u64
    }
    /// Frames taken away now.
    pub fn squeezed(&self) -> u64 {
        self.parts().squeezed.lock_host().len() as u64
    }

    /// Adds a swap area. A file is made if there is none and made longer if it is shorter, never cut.
    ///
    /// # Errors
    /// [`SwapCtlError`]; nothing has changed, but that a file which was not there may be, empty.
    #[doc(alias = "swapadd")]
    pub fn swap_add(&self, area: &SwapArea) -> Result<AreaId, SwapCtlError> {
        match &area.backing {
            SwapBacking::Memory => self.swap_add_device(self.memory_device(area.pages), area),
            SwapBacking::File(path) => {
                let refused =
                    |source| SwapCtlError::Device { path: path.display().to_string(), source };
                let device = FileDevice::create(path, area.pages).map_err(refused)?;
                self.swap_add_device(Arc::new(device), area).map_err(|e| match e {
                    SwapCtlError::Swap(SwapError::Device(source)) => refused(source),
                    e => e,
                })
            }
        }
    }
    fn memory_device(&self, pages: u64) -> Arc<dyn SwapDevice> {
        // Two devices of one name would count as one medium.
        let n = self.parts().next_device.fetch_add(1, page_db::sync::atomic::Ordering::Relaxed);
        Arc::new(MemDevice::new(format!("mem{n}"), pages))
    }
    fn swap_add_device(
        &self,
        device: Arc<dyn SwapDevice>,
        area: &SwapArea,
    ) -> Result<AreaId, SwapCtlError> {
        Ok(self.swap().add(self.cx(), device, 0, area.pages, area.priority)?)
    }
    /// Removes a swap area; what is stored there is brought back first.
    ///
    /// # Errors
    /// [`SwapCtlError`]; the area stays in use.
    #[doc(alias = "swapdel")]
    pub fn swap_del(&self, area: AreaId) -> Result<(), SwapCtlError> {
        Ok(self.swap().remove(self.cx(), area)?)
    }
}

impl Process {
    /// Takes away what this process has mapped and pushes its pages that nobody maps then; returns the bytes freed. Who is swapped out, and when, is the
    /// caller's choice: no scheduler (`sched`) decides it here by a mean of free memory (`avefree`).
    #[doc(alias("as_swapout", "memory_swapper", "sched", "avefree"))]
    pub fn swap_out(&self) -> u64 {
        self.space_now().swapout(self.cx())
    }
}
