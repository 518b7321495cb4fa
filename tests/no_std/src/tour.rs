//! What the machine is put through: mapping, faults, fork, copy on write, page-out and memory running short, with the bytes compared at
//! each step and every invariant checked after it.
//!
//! A page's expected contents are eight bytes computed from who wrote it, where, and in which round; a wrong frame is a wrong byte.

use crate::machine::{DEVICE_FRAMES, FIRST_FRAME, FRAMES, Hooks, Machine};
use crate::rom::RomFile;
use crate::{Result, ensure};
use addr_space::{AddrSpace, SegKind};
use alloc::string::String;
use alloc::sync::Arc;
use page_db::{Counter, Cx, FileOffset, PAGE_SIZE, Pfn, Prot, Snapshot, VirtRange, Vnode};
use seg_drivers::{DeviceMemory, SegDevArgs, SegVnArgs};

/// Where memory is mapped.
const BASE: u64 = 0x1_0000;
/// Where the file is mapped.
const TEXT: u64 = 0x40_0000;
/// Where the device is mapped.
const DEVICE: u64 = 0x60_0000;
/// Where more than all of memory is mapped.
const LARGE: u64 = 0x1000_0000;
/// Where one page is touched in what each of many page tables maps.
const SPARSE: u64 = 0x1_0000_0000;
/// Bytes that a page table maps.
const TABLE: u64 = 512 * PAGE_SIZE;
/// Tables there: more than there are frames.
const TABLES: u64 = FRAMES + 48;
/// Pages of the first mapping.
const PAGES: u64 = 48;
/// Pages of the large one: more than there are frames.
const MANY: u64 = FRAMES * 2;

/// What happened, in the counters' terms.
#[derive(Debug)]
pub struct Report {
    /// All counters at the end.
    pub counters: Snapshot,
    /// Pages that went to the swap device.
    pub written: u64,
}

/// A device with frames of its own, behind the memory that the page database manages.
#[derive(Debug)]
struct FrameBuffer;
impl DeviceMemory for FrameBuffer {
    fn name(&self) -> String {
        "fb".into()
    }
    fn pages(&self) -> u64 {
        DEVICE_FRAMES
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        (index < DEVICE_FRAMES).then_some(Pfn(FIRST_FRAME + FRAMES + index))
    }
}

/// Boots a machine and runs everything on its processor 0; `step` hears what is done, before it is.
///
/// # Errors
/// The first wrong byte, broken invariant or refused operation.
pub fn tour(hooks: &Hooks, step: &mut dyn FnMut(&str)) -> Result<Report> {
    let cx = &hooks.cx(0, 1);
    step("boot: page-db, swapfs, hat-x86, addr-space, seg-drivers");
    let m = &Machine::boot(cx, hooks, 1)?;
    m.verify(cx, &[])?;
    let at_boot = m.db.freemem();

    step("map, and fault every page in");
    let parent = m.space(cx)?;
    map_and_fault(cx, m, &parent)?;

    step("map a file and a device");
    let file = map_file(cx, m, &parent)?;
    map_device(cx, m, &parent)?;
    m.verify(cx, &[&parent])?;

    step("fork, and write on both sides");
    let child = m.space(cx)?;
    fork(cx, m, &parent, &child)?;
    m.verify(cx, &[&parent, &child])?;

    step("page everything out, and read it back");
    page_out(cx, m, &parent, &child)?;
    m.verify(cx, &[&parent, &child])?;

    step("use more memory than there is");
    run_short(cx, m, &child)?;
    m.verify(cx, &[&parent, &child])?;

    step("touch a page under each of more page tables than there are frames");
    run_short_of_tables(cx, m, &child)?;
    m.verify(cx, &[&parent, &child])?;

    step("unmap the middle; free both; nothing is left");
    unmap(cx, m, &parent)?;
    m.verify(cx, &[&parent, &child])?;
    child.free(cx);
    parent.free(cx);
    ensure!(file.close(cx, &m.db)?, "a page of the file is left");
    m.verify(cx, &[&parent, &child])?;
    let (live, reserved) = (m.swap.live(), m.swap.info().reserved());
    ensure!(live == 0, "{live} anons are left");
    ensure!(reserved == 0, "{reserved} pages of swap are still promised");
    ensure!(m.db.freemem() == at_boot, "{} pages are free, at boot {at_boot}", m.db.freemem());

    let counters = m.db.counters().snapshot();
    let (_, written) = m.disk.transfers();
    Ok(Report { counters, written })
}

/// The bytes of page `page` as `who` wrote them.
fn mark(who: u64, page: u64) -> [u8; 8] {
    (who << 32 | (page + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn address(base: u64, page: u64) -> u64 {
    base + page * PAGE_SIZE + (page * 40) % (PAGE_SIZE - 8)
}

fn write(cx: &Cx, m: &Machine, space: &AddrSpace, base: u64, who: u64, page: u64) -> Result<()> {
    m.store(cx, space, address(base, page), &mark(who, page))
}

fn expect(cx: &Cx, m: &Machine, space: &AddrSpace, base: u64, who: u64, page: u64) -> Result<()> {
    let mut found = [0; 8];
    m.load(cx, space, address(base, page), &mut found)?;
    let wanted = if who == 0 { [0; 8] } else { mark(who, page) };
    ensure!(
        found == wanted,
        "page {page} above {base:#x} of space {}: found {found:x?}, wrote {wanted:x?} ({who})",
        space.id().0
    );
    Ok(())
}

fn since(m: &Machine, before: &Snapshot, counter: Counter) -> u64 {
    m.db.counters().snapshot().since(before).get(counter)
}

fn map_and_fault(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<()> {
    let before = m.db.counters().snapshot();
    let range = VirtRange::exact(BASE, PAGES * PAGE_SIZE)?;
    space.map(cx, range, &SegVnArgs::zfod(&m.vn, Prot::RW))?;
    ensure!(space.hat().resident() == 0, "mapping alone loads nothing");
    for page in 0..PAGES {
        expect(cx, m, space, BASE, 0, page)?;
        write(cx, m, space, BASE, 1, page)?;
    }
    for page in 0..PAGES {
        expect(cx, m, space, BASE, 1, page)?;
    }
    let zfod = since(m, &before, Counter::Zfod);
    ensure!(zfod == PAGES, "{zfod} pages were filled with zeros, not {PAGES}");
    ensure!(m.load(cx, space, BASE - PAGE_SIZE, &mut [0]).is_err(), "nothing is mapped there");
    Ok(())
}

fn map_file(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<Arc<RomFile>> {
    let bytes = (0..3 * PAGE_SIZE + 100).map(|i| (i * 7 / 3) as u8).collect();
    let file = RomFile::new(cx, &m.db, bytes)?;
    let vnode: Arc<dyn Vnode> = Arc::clone(&file) as _;
    let args = SegVnArgs {
        vnode: Some(vnode),
        offset: FileOffset(PAGE_SIZE),
        ..SegVnArgs::zfod(&m.vn, Prot::RW)
    };
    space.map(cx, VirtRange::exact(TEXT, 3 * PAGE_SIZE)?, &args)?;
    let byte = |at: u64| ((PAGE_SIZE + at) * 7 / 3) as u8;
    let mut found = [0; 4];
    m.load(cx, space, TEXT + PAGE_SIZE - 2, &mut found)?;
    ensure!(
        found == [-2i64, -1, 0, 1].map(|i| byte(PAGE_SIZE.wrapping_add_signed(i))),
        "the file's bytes: {found:?}"
    );
    // Private: the store is ours, the rest of the page the file's.
    m.store(cx, space, TEXT + 5, &[0xee])?;
    m.load(cx, space, TEXT + 4, &mut found)?;
    ensure!(found == [byte(4), 0xee, byte(6), byte(7)], "a copy of the file's page: {found:?}");
    Ok(file)
}

fn map_device(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<()> {
    let args = SegDevArgs {
        device: Arc::new(FrameBuffer),
        offset: FileOffset(2 * PAGE_SIZE),
        prot: Prot::RW,
        max_prot: Prot::RWX,
        kind: SegKind::SHARED,
    };
    space.map(cx, VirtRange::exact(DEVICE, 4 * PAGE_SIZE)?, &args)?;
    m.store(cx, space, DEVICE + PAGE_SIZE + 8, b"pixel")?;
    let mut found = [0; 5];
    m.db.mem().read(Pfn(FIRST_FRAME + FRAMES + 3), 8, &mut found);
    ensure!(&found == b"pixel", "the device's frame has {found:?}");
    Ok(())
}

fn fork(cx: &Cx, m: &Machine, parent: &AddrSpace, child: &AddrSpace) -> Result<()> {
    let before = m.db.counters().snapshot();
    parent.dup(cx, child)?;
    for page in 0..PAGES {
        expect(cx, m, child, BASE, 1, page)?;
    }
    ensure!(since(m, &before, Counter::CowFault) == 0, "reading copies nothing");
    for page in 0..PAGES {
        match page % 3 {
            0 => write(cx, m, child, BASE, 2, page)?,
            1 => write(cx, m, parent, BASE, 3, page)?,
            _ => {}
        }
    }
    after_fork(cx, m, parent, child)?;
    let copied = since(m, &before, Counter::CowFault);
    ensure!(copied == PAGES * 2 / 3, "{copied} pages were copied, not {}", PAGES * 2 / 3);
    Ok(())
}

/// Who wrote what both sides have after the fork.
fn after_fork(cx: &Cx, m: &Machine, parent: &AddrSpace, child: &AddrSpace) -> Result<()> {
    for page in 0..PAGES {
        expect(cx, m, parent, BASE, if page % 3 == 1 { 3 } else { 1 }, page)?;
        expect(cx, m, child, BASE, if page % 3 == 0 { 2 } else { 1 }, page)?;
    }
    Ok(())
}

fn page_out(cx: &Cx, m: &Machine, parent: &AddrSpace, child: &AddrSpace) -> Result<()> {
    let before = m.db.counters().snapshot();
    m.pageout.reclaim_all(cx, &m.db);
    m.verify(cx, &[parent, child])?;
    let anons = PAGES + PAGES * 2 / 3;
    let out = since(m, &before, Counter::AnonPgOut);
    ensure!(out >= anons, "{out} anonymous pages went out, not {anons}");
    ensure!(m.disk.stored() >= anons, "{} pages are on the device", m.disk.stored());
    // What names the pages now is the cache list; take that away too, so that they must be read.
    drain_cache(cx, m)?;
    after_fork(cx, m, parent, child)?;
    let back = since(m, &before, Counter::AnonPgIn);
    ensure!(back >= anons, "{back} anonymous pages came back in, not {anons}");
    Ok(())
}

/// Makes every cached page lose its name, by asking for all frames and giving them back.
fn drain_cache(cx: &Cx, m: &Machine) -> Result<()> {
    let mut taken = alloc::vec::Vec::new();
    while let Ok(page) = m.db.alloc(cx, taken.len() as u64, page_db::Reserve::Push) {
        taken.push(page);
    }
    let census = m.db.freemem();
    for page in taken {
        m.db.free(cx, page, false);
    }
    ensure!(census == 0, "{census} pages could not be taken");
    Ok(())
}

fn run_short(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<()> {
    let range = VirtRange::exact(LARGE, MANY * PAGE_SIZE)?;
    space.map(cx, range, &SegVnArgs::zfod(&m.vn, Prot::RW))?;
    for page in 0..MANY {
        write(cx, m, space, LARGE, 4, page)?;
    }
    for page in (0..MANY).rev() {
        expect(cx, m, space, LARGE, 4, page)?;
    }
    Ok(())
}

fn run_short_of_tables(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<()> {
    let range = VirtRange::exact(SPARSE, TABLES * TABLE)?;
    let args = SegVnArgs { kind: SegKind::NORESERVE, ..SegVnArgs::zfod(&m.vn, Prot::RW) };
    space.map(cx, range, &args)?;
    for n in 0..TABLES {
        m.store(cx, space, SPARSE + n * TABLE, &mark(5, n))?;
    }
    for n in (0..TABLES).rev() {
        let mut found = [0; 8];
        m.load(cx, space, SPARSE + n * TABLE, &mut found)?;
        ensure!(found == mark(5, n), "under table {n}: {found:x?}");
    }
    space.unmap(cx, range)?;
    Ok(())
}

fn unmap(cx: &Cx, m: &Machine, space: &AddrSpace) -> Result<()> {
    let segs = |space: &AddrSpace| space.segs(cx).len();
    let before = segs(space);
    space.unmap(cx, VirtRange::exact(BASE + 8 * PAGE_SIZE, 8 * PAGE_SIZE)?)?;
    ensure!(segs(space) == before + 1, "unmapping the middle leaves two segments");
    ensure!(m.load(cx, space, BASE + 9 * PAGE_SIZE, &mut [0]).is_err(), "the middle is gone");
    expect(cx, m, space, BASE, 3, 7)?;
    expect(cx, m, space, BASE, 3, 16)
}
