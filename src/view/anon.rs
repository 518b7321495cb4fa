//! `::anon`: the anon maps of a process, segment by segment.

use crate::machine::Process;
use page_db::{VirtAddr, VirtRange};
use seg_drivers::SegVn;
use seg_drivers::dump::AnonView;
use serde::Serialize;
use std::any::Any;
use std::fmt;

/// One segment and its part of an anon map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AnonSeg {
    /// First address of the segment.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its slots; `None` before anything was touched.
    pub map: Option<AnonView>,
}

/// The view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AnonTable {
    /// The `seg_vn` segments that have a map, or the one asked for.
    pub segs: Vec<AnonSeg>,
}

impl AnonTable {
    /// Every segment that has a map; or, with an address, the segment there and only the slot of its page.
    pub fn of(process: &Process, addr: Option<VirtAddr>) -> Self {
        let (cx, space) = (process.cx(), process.space());
        let layer = process.machine().anon();
        let mut table = Self { segs: Vec::new() };
        for seg in space.segs(cx).iter() {
            let (range, ops) = (seg.range(), seg.ops() as &dyn Any);
            let Some(vn) = ops.downcast_ref::<SegVn>() else { continue };
            let part = match addr {
                Some(a) if range.contains(a) => VirtRange::page_of(a),
                Some(_) => continue,
                None => range,
            };
            let (slots, first) = (vn.slots_of(range, part), vn.amp_index());
            let view = |map| AnonView::of(cx, layer, map, slots, first, Some(range.start()));
            let map = vn.amap().map(|m| view(m));
            if map.is_some() || addr.is_some() {
                table.segs.push(AnonSeg { base: range.start().get(), size: range.len(), map });
            }
        }
        table
    }
}

impl fmt::Display for AnonTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segs.is_empty() {
            return writeln!(f, "no anon map");
        }
        for AnonSeg { base, size, map } in &self.segs {
            write!(f, "seg {base:#x} size {}k ", size / 1024)?;
            match map {
                Some(map) => write!(f, "{map}")?,
                None => writeln!(f, "no anon map: nothing was touched yet")?,
            }
        }
        Ok(())
    }
}
