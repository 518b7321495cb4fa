//! `::anon`: an anon map as a table: chunks, slots, references, names, residency.

use crate::anon::array::CHUNK;
use crate::anon::{AnonLayer, AnonMap};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use page_db::{Cx, Identity, PageId, VirtAddr};

/// One occupied slot.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct AnonRow {
    /// Address of the page, where the view was asked for a segment.
    pub addr: Option<u64>,
    /// Slot, counted from the segment's first.
    pub slot: u64,
    /// Chunk the slot lies in, counted from that of the segment's first slot.
    pub chunk: u64,
    /// The anon's number.
    pub anon: u32,
    /// Slots that hold it (`an_refcnt`).
    pub refs: u32,
    /// Its name.
    pub name: Identity,
    /// The page, if it is resident.
    pub page: Option<PageId>,
    /// Its place on a swap device, if it has one.
    pub swap: Option<String>,
    /// If `page` is on loan to it: whose that is, or "nobody" once the lender has another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub borrowed: Option<String>,
}

/// The view.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct AnonView {
    /// The map's number.
    pub amp: u32,
    /// Segments that use it.
    pub refs: u32,
    /// Bytes of swap reserved by the map itself.
    pub swresv: u64,
    /// References slot by slot where they differ from `refs`: first slot, slots, references.
    pub slot_refs: Vec<(u64, u64, u32)>,
    /// Chunks allocated.
    pub chunks: usize,
    /// Occupied slots.
    pub rows: Vec<AnonRow>,
}

impl AnonView {
    /// The slots of `range` of a map, counted from `first`, which stands for the page at `base` where there is one.
    pub fn of(
        cx: &Cx,
        layer: &AnonLayer,
        map: &AnonMap,
        range: Range<u64>,
        first: u64,
        base: Option<VirtAddr>,
    ) -> Self {
        let runs = map.slot_refs(cx, range.clone());
        let slot_refs = if runs.iter().all(|(_, n)| *n == map.refs()) {
            Vec::new()
        } else {
            runs.into_iter().map(|(r, n)| (r.start - first, r.end - r.start, n)).collect()
        };
        let rows = map
            .slots(cx, range)
            .map(|(slot, n)| {
                let at = slot.wrapping_sub(first);
                let name = layer.swap().identity(n);
                let lender = layer.swap().place(n).lender();
                let owner = |page| match layer.db().page(page).identity() {
                    Some(id) => id.to_string(),
                    None => "nobody".to_string(),
                };
                AnonRow {
                    addr: base.map(|a| a.get() + at * page_db::PAGE_SIZE),
                    slot: at,
                    chunk: (slot / CHUNK).wrapping_sub(first / CHUNK),
                    anon: n.get(),
                    refs: layer.anons().refs(n),
                    name,
                    page: lender.or_else(|| layer.db().exists(cx, name)),
                    swap: layer.swap().slot(cx, n).map(|s| s.to_string()),
                    borrowed: lender.map(owner),
                }
            })
            .collect();
        Self {
            amp: map.id().0,
            refs: map.refs(),
            swresv: map.swresv(),
            slot_refs,
            chunks: map.chunks(cx).len(),
            rows,
        }
    }
}

impl fmt::Display for AnonView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "amp {} refcnt {} swresv {}k chunks {}",
            self.amp,
            self.refs,
            self.swresv / 1024,
            self.chunks
        )?;
        if !self.slot_refs.is_empty() {
            write!(f, "slot refs")?;
            for (first, slots, n) in &self.slot_refs {
                write!(f, " {first}+{slots}:{n}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{:>5} {:>6} {:>16} {:>6} {:>4} {:<18} {:>6} SWAP",
            "CHUNK", "SLOT", "ADDR", "ANON", "REFS", "NAME", "PAGE"
        )?;
        for r in &self.rows {
            writeln!(
                f,
                "{:>5} {:>6} {:>16} {:>6} {:>4} {:<18} {:>6} {}",
                r.chunk,
                r.slot,
                r.addr.map_or_else(|| "-".to_string(), |a| alloc::format!("{a:x}")),
                r.anon,
                r.refs,
                r.name.to_string(),
                r.page.map_or_else(|| "-".to_string(), |p| p.to_string()),
                match (&r.swap, &r.borrowed) {
                    (Some(slot), _) => slot.clone(),
                    (None, Some(owner)) => alloc::format!("borrowed from {owner}"),
                    (None, None) => "-".to_string(),
                },
            )?;
        }
        Ok(())
    }
}
