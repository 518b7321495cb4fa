//! What an address space looks like: `::seg`, `::segtree`, `pmap`.
//!
//! Each table is data first (serde), then text. Numbers stand where the originals print host pointers: SEG is the segment's id in the tree,
//! DATA the number of its anon map. Nothing here visits absent pages, so a table of a 16 TiB mapping costs what is resident.
//!
//! Sources: illumos.md 11.1, 11.2, 11.4.

use crate::addr_space::AddrSpace;
use crate::seg::{SegDetail, SegKind};
use crate::segs::Seg;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use page_db::{Cx, PAGE_SIZE, Prot, VirtRange};

const K: u64 = 1024;

/// One line of `::seg`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SegRow {
    /// The segment's id.
    pub seg: u32,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// The driver's name.
    pub ops: &'static str,
    /// What the driver says of itself.
    pub detail: SegDetail,
    /// Pages resident.
    pub resident: u64,
}

/// The segments of an address space (`::seg`).
#[doc(alias = "::seg")]
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SegTable {
    /// In order of address.
    pub rows: Vec<SegRow>,
}

/// One node of the tree of segments.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SegNode {
    /// The segment's number.
    pub seg: u32,
    /// First address.
    pub start: u64,
    /// First byte past it.
    pub end: u64,
    /// How far below the root; the root has 0.
    pub depth: u32,
    /// Height of its subtree; a leaf has 1.
    pub height: u32,
    /// Height of the right subtree less that of the left.
    pub balance: i32,
    /// Bytes of the hole just below the segment.
    pub gap: u64,
    /// Bytes of the largest such hole in the subtree.
    pub max_gap: u64,
    /// The driver.
    pub ops: &'static str,
}

/// The tree with its drivers (`::segtree`).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SegTree {
    /// The nodes, in order of address.
    pub nodes: Vec<SegNode>,
    /// The lines of the picture.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// One line of `pmap -x`: a run of pages of one segment with equal rights.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PmapRow {
    /// First address.
    pub address: u64,
    /// Size in units of 1024 bytes, as all that follow.
    pub kbytes: u64,
    /// Resident.
    pub rss: u64,
    /// Private copies.
    pub anon: u64,
    /// Locked by this mapping.
    pub locked: u64,
    /// Swap that the mapping may come to need (`pmap -S`).
    pub swap: u64,
    /// `rwxsR`: rights, shared, without reservation.
    pub mode: String,
    /// Path or bracketed name.
    pub name: String,
}

/// The mappings of an address space (`pmap -x`).
#[doc(alias("pmap", "prgetmap"))]
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Pmap {
    /// In order of address.
    pub rows: Vec<PmapRow>,
}

impl AddrSpace {
    /// The table of segments.
    pub fn seg_table(&self, cx: &Cx) -> SegTable {
        let segs = self.segs(cx);
        let rows = segs.tree().iter().map(|id| (id, segs.get(id))).map(|(id, seg)| {
            let scx = self.scx(cx, seg.range(), false);
            SegRow {
                seg: id.to_raw(),
                base: seg.base().get(),
                size: seg.size(),
                ops: seg.driver(),
                detail: seg.ops().detail(&scx),
                resident: seg.ops().residency(&scx, seg.range()).rss,
            }
        });
        SegTable { rows: rows.collect() }
    }
    /// The picture of the tree: heights, balance, gaps, drivers.
    pub fn seg_tree(&self, cx: &Cx) -> SegTree {
        let segs = self.segs(cx);
        let picture = segs.tree().to_string();
        // Below the totals and the headings each line is a segment, in order of address, but the last (the tail).
        let drivers = [None, Some("ops")].into_iter().chain(segs.iter().map(|s| Some(s.driver())));
        let width = picture.lines().skip(1).map(|line| line.chars().count()).max().unwrap_or(0);
        let lines = picture.lines().zip(drivers.chain(core::iter::repeat(None)));
        let lines = lines.map(|(line, driver)| match driver {
            Some(driver) => format!("{line:<width$}  {driver}"),
            None => line.to_string(),
        });
        let node = |(n, seg): (crate::avl::ShapeNode, Seg<'_>)| SegNode {
            seg: n.id.to_raw(),
            start: n.start,
            end: n.end,
            depth: n.depth,
            height: n.height,
            balance: n.balance,
            gap: n.gap_before,
            max_gap: n.max_gap,
            ops: seg.driver(),
        };
        let nodes = segs.tree().shape().into_iter().zip(segs.iter()).map(node).collect();
        SegTree { nodes, lines: lines.collect() }
    }
    /// The table of mappings. Holes that only look unmapped are left out.
    pub fn pmap(&self, cx: &Cx) -> Pmap {
        let segs = self.segs(cx);
        let mut rows = Vec::new();
        for seg in segs.iter().filter(|seg| !seg.ops().kind().contains(SegKind::HOLE)) {
            self.pmap_seg(cx, seg, &mut rows);
        }
        Pmap { rows }
    }
    fn pmap_seg(&self, cx: &Cx, seg: Seg<'_>, rows: &mut Vec<PmapRow>) {
        let scx = self.scx(cx, seg.range(), false);
        let detail = seg.ops().detail(&scx);
        let mut runs: Vec<(VirtRange, Prot)> = Vec::new();
        seg.ops().prots(&scx, seg.range(), &mut |run, prot| runs.push((run, prot)));
        if runs.is_empty() {
            runs.push((seg.range(), detail.prot));
        }
        for (range, prot) in runs {
            let inside = seg.ops().residency(&scx, range);
            let kind = seg.ops().kind();
            let kbytes = range.len() / K;
            let kb = |pages: u64| pages.saturating_mul(PAGE_SIZE / K);
            let swap = match () {
                () if kind.contains(SegKind::SHARED) => 0,
                () if kind.contains(SegKind::NORESERVE) => kb(inside.anon),
                () if prot.contains(Prot::WRITE) => kbytes,
                () => 0,
            };
            rows.push(PmapRow {
                address: range.start().get(),
                kbytes,
                rss: kb(inside.rss),
                anon: kb(inside.anon),
                locked: kb(inside.locked),
                swap,
                mode: mode(prot, kind),
                name: detail.name.clone(),
            });
        }
    }
}

/// `rwxsR`, with `-` for what is not so.
fn mode(prot: Prot, kind: SegKind) -> String {
    let shared = if kind.contains(SegKind::SHARED) { 's' } else { '-' };
    let noreserve = if kind.contains(SegKind::NORESERVE) { 'R' } else { '-' };
    format!("{prot}{shared}{noreserve}")
}

/// A size in kilobytes with the `k` that mdb prints.
struct Kilo(u64);
impl fmt::Display for Kilo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}k", self.0 / K))
    }
}

/// A number, or `-` for nothing.
struct OrDash(Option<u64>);
impl fmt::Display for OrDash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => f.pad_integral(true, "", &n.to_string()),
            None => f.pad("-"),
        }
    }
}

/// The line of the debugger: everything about one segment.
impl fmt::Display for SegRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.detail;
        let amp = OrDash(d.amp.map(u64::from));
        write!(
            f,
            "seg {} base={:#x} size={} ops={}",
            self.seg,
            self.base,
            Kilo(self.size),
            self.ops
        )?;
        write!(f, " prot={} (max {})", d.prot, d.max_prot)?;
        write!(f, " name={} off={:#x} amp={amp} idx={}", d.name, d.offset.0, d.amp_index)?;
        write!(f, " resv={} softlock={}", Kilo(d.swresv), d.softlocks)?;
        write!(f, " res={}/{}", self.resident, self.size / PAGE_SIZE)
    }
}

/// SEG BASE SIZE DATA OPS.
impl fmt::Display for SegTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5} {:>16} {:>16} {:>6} OPS", "SEG", "BASE", "SIZE", "DATA")?;
        for row in &self.rows {
            let data = OrDash(row.detail.amp.map(u64::from));
            writeln!(
                f,
                "{:>5} {:>16x} {:>16x} {data:>6} {}",
                row.seg, row.base, row.size, row.ops
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for SegTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Pmap {
    /// The sums, in kilobytes: size, resident, private, locked, swap.
    pub fn totals(&self) -> [u64; 5] {
        self.rows.iter().fold([0; 5], |sum, row| {
            let own = [row.kbytes, row.rss, row.anon, row.locked, row.swap];
            core::array::from_fn(|i| sum[i].saturating_add(own[i]))
        })
    }
    /// The same table as `pmap -S` prints it: how much swap each mapping may come to need.
    pub fn swap_view(&self) -> impl fmt::Display + '_ {
        SwapView(self)
    }
}

fn dash(n: u64) -> OrDash {
    OrDash((n != 0).then_some(n))
}

/// Address, Kbytes, RSS, Anon, Locked, Mode, Mapped File, and a line of totals.
impl fmt::Display for Pmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "-".repeat(16);
        writeln!(
            f,
            "{:>16} {:>12} {:>10} {:>10} {:>10} Mode  Mapped File",
            "Address", "Kbytes", "RSS", "Anon", "Locked"
        )?;
        for row in &self.rows {
            let (rss, anon, locked) = (dash(row.rss), dash(row.anon), dash(row.locked));
            let (address, mode, name) = (row.address, &row.mode, &row.name);
            writeln!(
                f,
                "{address:016x} {:>12} {rss:>10} {anon:>10} {locked:>10} {mode} {name}",
                row.kbytes
            )?;
        }
        let ten = &line[..10];
        writeln!(f, "{line} {} {ten} {ten} {ten}", &line[..12])?;
        let [kbytes, rss, anon, locked, _] = self.totals();
        let (rss, anon, locked) = (dash(rss), dash(anon), dash(locked));
        writeln!(f, "{:>16} {kbytes:>12} {rss:>10} {anon:>10} {locked:>10}", "total Kb")
    }
}

struct SwapView<'a>(&'a Pmap);

impl fmt::Display for SwapView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "-".repeat(16);
        writeln!(f, "{:>16} {:>12} {:>12} Mode  Mapped File", "Address", "Kbytes", "Swap")?;
        for row in &self.0.rows {
            let (address, swap, mode, name) = (row.address, dash(row.swap), &row.mode, &row.name);
            writeln!(f, "{address:016x} {:>12} {swap:>12} {mode} {name}", row.kbytes)?;
        }
        writeln!(f, "{line} {} {}", &line[..12], &line[..12])?;
        let [kbytes, .., swap] = self.0.totals();
        writeln!(f, "{:>16} {kbytes:>12} {:>12}", "total Kb", dash(swap))
    }
}
