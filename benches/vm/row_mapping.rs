//! Row 3: the same fault against the bare bookkeeping other crates offer: find the area, write the entry.

use std::sync::{Mutex, MutexGuard};

use page_db::Counter;

use crate::harness::{
    Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, per_operation, timed, windows,
};
use crate::linux::{PAGE, Region};
use crate::our_world::{Aged, World};
use crate::peers::{MappingOnly, OffsetMapping, shape};
use crate::row_cold::{FRAMES, PAGES as COLD_PAGES, fault_all};
use crate::row_faults::{WINDOW, our_windows, warm_segments};

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "3a",
            name: "the fault with its data untouched, warm, ns",
            ours: "3.ours.no_data",
            reference: "3.mapping",
            against: "memory_set find + page_table_multiarch map",
            form: Form::AtMost,
            threads: 1,
            must: 7.0,
            stretch: 5.0,
        },
        Goal {
            row: "3b",
            name: "the fault, 64 000 cold pages, ns",
            ours: "3.ours.cold",
            reference: "3.mapping.cold",
            against: "the same mapping and a zeroed cold frame",
            form: Form::AtMost,
            threads: 1,
            must: 2.0,
            stretch: 1.25,
        },
    ],
    also: &[
        Also {
            row: "3",
            name: "BTreeMap find + x86_64 OffsetPageTable map, warm, ns",
            key: "3.offset",
        },
        Also {
            row: "3",
            name: "mapping alone, 64 000 faults, tables allocated, ns",
            key: "3.mapping.fresh",
        },
        Also { row: "3", name: "zeroing a cold frame alone, ns", key: "3.zero" },
    ],
    build: |config| Ok(Box::new(Mapping::new(config)?)),
};

struct Mapping {
    blind: World,
    cold: World,
    mapping: MappingOnly,
    offset: OffsetMapping,
    frames: Region,
    /// Scattered, and in the order of their addresses, as ours are.
    order: Vec<u32>,
    aged: Aged,
    rng: Rng,
}

impl Mapping {
    fn new(_config: &Config) -> Result<Self, String> {
        let blind = World::new(4 * WINDOW + 4096, false)?;
        blind.on(0).map_fault_segments();
        let cold = World::new(FRAMES, true)?;
        let frames = Region::anonymous(2 * COLD_PAGES * PAGE).map_err(|e| e.to_string())?;
        frames.touch_all();
        let mut rng = Rng::new(3);
        let mut order = rng.permutation(2 * COLD_PAGES);
        order.truncate(COLD_PAGES);
        order.sort_unstable();
        Ok(Self {
            blind,
            cold,
            mapping: MappingOnly::new(),
            offset: OffsetMapping::new(),
            frames,
            order,
            aged: Aged::default(),
            rng,
        })
    }

    /// Every page of every segment once, scattered frames in the order of their addresses as on the other side.
    fn our_cold_faults(&mut self) -> f64 {
        let hand = self.cold.on(0);
        hand.unmap(shape::BASE, shape::SEGMENTS * shape::STRIDE);
        self.aged.anew(&hand, &mut self.rng);
        hand.map_fault_segments();
        hand.counted(&[(Counter::Zfod, COLD_PAGES)], || fault_all(&hand))
    }

    fn their_cold_faults(&mut self, map: bool, zero: bool) -> f64 {
        self.mapping.empty();
        timed(COLD_PAGES, |part| {
            for at in part {
                let frame = self.order[at] as usize * PAGE;
                if zero {
                    // SAFETY: the frame lies in the region, which only this test uses.
                    unsafe { self.frames.as_ptr().add(frame).write_bytes(0, PAGE) };
                }
                if map {
                    self.mapping.fault(
                        shape::address(shape::BASE, at / shape::PAGES, at % shape::PAGES),
                        frame,
                    );
                }
            }
        })
    }
}

/// Windows of 256 bare mappings; `fault` and `unload` are the peer's.
fn peer_windows<P: Send>(
    config: &Config,
    peer: &mut P,
    count: usize,
    fault: fn(&mut P, usize, usize),
    unload: fn(&mut P, usize),
) -> f64 {
    let pages: Vec<usize> = warm_segments(0)
        .flat_map(|segment| {
            (0..shape::PAGES).map(move |page| shape::address(shape::BASE, segment, page))
        })
        .collect();
    let arm =
        |peer: &mut MutexGuard<'_, &mut P>| pages.iter().for_each(|&address| unload(peer, address));
    let work = |peer: &mut MutexGuard<'_, &mut P>| {
        pages.iter().enumerate().for_each(|(i, &address)| fault(peer, address, i * PAGE))
    };
    let peer = Mutex::new(peer);
    let make = |_| peer.lock().expect("one thread");
    let lengths = windows(config, 1, count, make, arm, |_| (), work);
    per_operation(&lengths, pages.len())
}

impl Group for Mapping {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let count = config.pick(101, 31);
        samples.put(
            "3.ours.no_data",
            per_operation(&our_windows(config, &self.blind, 1, count), WINDOW),
        );
        self.mapping.empty();
        samples.put(
            "3.mapping",
            peer_windows(config, &mut self.mapping, count, MappingOnly::fault, MappingOnly::unload),
        );
        samples.put(
            "3.offset",
            peer_windows(
                config,
                &mut self.offset,
                count,
                OffsetMapping::fault,
                OffsetMapping::unload,
            ),
        );
        samples.put("3.ours.cold", self.our_cold_faults());
        samples.put("3.mapping.cold", self.their_cold_faults(true, true));
        samples.put("3.zero", self.their_cold_faults(false, true));
        samples.put("3.mapping.fresh", self.their_cold_faults(true, false));
    }
}
