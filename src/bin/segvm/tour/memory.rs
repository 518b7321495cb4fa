//! Files and segments from the side, memory running short, and the end.

use anyhow::Result;
use page_db::PAGE_SIZE;
use page_db::dump::MemStat;
use segvm::script::outcome::{Outcome, SegvCode};

use super::PROGRAM;
use super::anon::{begins, heap_page};
use super::program::adds_up;
use super::stage::{Keep, Stage};
use super::subject::Subject;

/// One file, mapped shared and private.
pub(super) fn file_two_ways(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "A file, shared and private",
        "Fig. 9.10 and 9.11: a private page that was never stored to is the file's page, and shows what \
         others write; one that was is an anon, and no longer does: it goes one way only.",
    );
    stage.run(&format!(
        "file $data 8192; map ${PROGRAM} 0 2 rw shared fixed file $data 0; \
         map ${PROGRAM} 8 2 rw priv fixed file $data 0"
    ))?;
    stage.run(&format!("write ${PROGRAM} 0 0+4 49"))?;
    let before = stage.run(&format!("read ${PROGRAM} 8 0+4"))?;
    stage.run(&format!("write ${PROGRAM} 8 0+1 80; write ${PROGRAM} 0 0+4 53"))?;
    let after = stage.run(&format!("read ${PROGRAM} 8 0+4"))?;
    let shared = stage.run("pread $data 0 4")?;
    stage.view("::vnode $data", Keep::All)?;
    stage.check("before its own store the private page showed the file", begins(&before, b"1234"));
    stage.check("after it, no longer", begins(&after, b"P234"));
    let hash = segvm::script::outcome::fnv(segvm::script::outcome::FNV_OFFSET, b"5678");
    let seen = matches!(shared, Outcome::Ok(facts) if facts.n == Some(4) && facts.h == Some(hash));
    stage.check("the file has what the shared page has", seen);
    Ok(())
}

/// mprotect and munmap in the middle.
pub(super) fn cutting(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "Segments are cut",
        "Ch. 9: mprotect of some pages keeps the segment and notes the rights page by page; munmap in \
         the middle cuts it in two, and the tree of segments is balanced again.",
    );
    stage.run(&format!("map ${PROGRAM} 16 9 rw priv fixed anon; write ${PROGRAM} 16 9 1"))?;
    stage.run(&format!("protect ${PROGRAM} 19 2 r"))?;
    let start = segvm::machine::ARENA + 16 * PAGE_SIZE;
    let lines: Vec<String> = (0..9).map(|n| format!("{:x}", start + n * PAGE_SIZE)).collect();
    stage.view(&format!("::pmap ${PROGRAM}"), Keep::Lines(0, &lines))?;
    let segments = |stage: &Stage<'_>| -> Result<usize> {
        let p = stage.process(PROGRAM)?;
        let count = p.space().segs(p.cx()).iter().count();
        Ok(count)
    };
    let whole = segments(stage)?;
    stage.run(&format!("unmap ${PROGRAM} 23 1"))?;
    let cut = segments(stage)?;
    stage.view(&format!("::segtree ${PROGRAM}"), Keep::Lines(2, &lines))?;
    let refused = stage.attempt(&format!("write ${PROGRAM} 19 0+1 1"))?;
    let hole = stage.attempt(&format!("read ${PROGRAM} 23 0+1"))?;
    let kept = stage.run(&format!("read ${PROGRAM} 24 0+4"))?;
    stage.check("one segment more", cut == whole + 1);
    let segv = |outcome, want| matches!(outcome, Outcome::Segv { code, .. } if code == want);
    stage.check("a read-only page refuses a store", segv(refused, SegvCode::Accerr));
    stage.check("the hole is unmapped", segv(hole, SegvCode::Maperr));
    stage.check("what lies above the hole kept its bytes", begins(&kept, &[1, 2, 3, 4]));
    Ok(())
}

/// First page of the heap that the squeeze is about.
const FIRST: u64 = 16;

/// Pages it is about.
const PAGES: u64 = 400;

/// Frames left when memory is short, above those that are kept for page-out itself.
const LEFT: u64 = 24;

/// What a page begins with: something that no other page has.
fn mark(page: u64) -> [u8; 8] {
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes()
}

/// Frames are taken away until anonymous pages have to go.
pub(super) fn short(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "Memory runs short",
        "Ch. 10 and 9.8: the two-handed clock clears the referenced bits and frees what stays unused; clean \
         file pages go to the cache list, anonymous pages get a slot on a swap device only now, and are \
         pushed out.",
    );
    stage.run(&format!("write ${PROGRAM} b:{FIRST} {PAGES} 1"))?;
    for page in FIRST..FIRST + PAGES {
        let at = heap_page(stage, page)?;
        if stage.process(PROGRAM)?.store(at, &mark(page)).is_err() {
            stage.check(format!("page b:{page} can be stored to"), false);
        }
    }
    stage.say(&format!("Each of the {PAGES} pages now begins with eight bytes of its own."));
    let names = ["scan", "anonpgout", "anonfree", "pgout"];
    let before = stage.counters(names);
    let machine = stage.world().machine();
    let frames = machine.db().pages().len();
    let kernel = MemStat::of(machine.cx(), machine.db()).kernel.get();
    let kept = machine.db().free_mem().thresholds().pageout_reserve;
    stage.run(&format!("squeeze {}", frames.saturating_sub(kernel + kept + LEFT)))?;
    let [scanned, out, freed, pushes] = stage.rose(before);
    stage.view("::memstat", Keep::All)?;
    stage.view("::swapinfo", Keep::All)?;
    let resident = resident(stage)?;
    let gone = resident.iter().position(|in_core| !in_core).map(|n| FIRST + n as u64);
    if let Some(page) = gone {
        stage.view(&format!("::walk ${PROGRAM} b:{page}"), Keep::All)?;
    }
    stage.say(&format!(
        "The hands made {scanned} turns; {out} anonymous pages went out in {pushes} pushes, {freed} were freed."
    ));
    let kept = resident.iter().filter(|in_core| **in_core).count();
    stage.say(&format!("Of the {PAGES} pages {kept} can still be found in memory by their names."));
    stage.check("anonymous pages went to swap", out > 0 && freed > 0 && gone.is_some());
    stage.check("they went in clusters", pushes < out);
    let used: u64 = areas(stage).iter().map(|(pages, free)| pages - free).sum();
    stage.check("slots of the swap area are used", used > 0);
    Ok(())
}

/// Which of the pages are in memory.
fn resident(stage: &Stage<'_>) -> Result<Vec<bool>> {
    let start = heap_page(stage, FIRST)?;
    let bits = stage.process(PROGRAM)?.mincore(start, PAGES * PAGE_SIZE)?;
    Ok(bits.into_iter().map(|bits| bits & 1 != 0).collect())
}

/// Size and free slots of every swap area.
fn areas(stage: &Stage<'_>) -> Vec<(u64, u64)> {
    let areas = stage.world().machine().swap().swapinfo();
    areas.0.iter().map(|a| (a.pages, a.free)).collect()
}

/// Everything is read again while memory is still short.
pub(super) fn back(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.step(
        "The bytes come back",
        "Ch. 9.8: a fault on an anon whose page is gone asks its swapfs vnode for it, which reads the slot; \
         the name never changed, so nobody who maps it can tell.",
    );
    let before = stage.counters(["maj_fault", "anonpgin", "pgpgin"]);
    let mut right = 0;
    for page in FIRST..FIRST + PAGES {
        let at = heap_page(stage, page)?;
        let (mut head, mut tail) = ([0; 8], [0; 8]);
        let p = stage.process(PROGRAM)?;
        let read = p.load(at, &mut head).is_ok() && p.load(at + PAGE_SIZE - 8, &mut tail).is_ok();
        // The page ends as the statement stored it: 1, 2, ... by the byte.
        right +=
            u64::from(read && head == mark(page) && tail == [249, 250, 251, 252, 253, 254, 255, 0]);
    }
    let [major, pages, all] = stage.rose(before);
    stage.say(&format!(
        "All {PAGES} pages are read again: {major} faults waited for a device, {pages} anonymous pages of {all} \
         pages came in."
    ));
    stage.check(format!("{right} of {PAGES} pages have their bytes"), right == PAGES);
    stage.check("they came from swap", pages > 0);
    let parent = stage.run(&format!("read ${PROGRAM} b:1 0+4"))?;
    let child = stage.run("read $child b:1 0+4")?;
    stage.check("so have those of the fork", begins(&parent, b"!LMN") && begins(&child, b"abcd"));
    let fetched = stage.run(&format!("fetch $twin {:#x}", subject.entry()))?;
    let want = subject.original(subject.entry(), 8)?;
    stage.check("text comes from its file", want.is_some_and(|want| begins(&fetched, &want)));
    stage.run("release")?;
    stage.view("::vmstat maj_fault anonpgin anonpgout anonfree pgrec scan rev", Keep::All)?;
    Ok(())
}

/// The last process exits.
pub(super) fn end(stage: &mut Stage<'_>, boot: &MemStat) -> Result<()> {
    stage.step(
        "Everything ends, and nothing is left",
        "Ch. 9.7 and 10: the last reference to an anon frees its page, its slot and its name; file pages \
         stay on the cache list under their identity, in case the file is opened again.",
    );
    stage.run(&format!("exit $child; exit $twin; exit ${PROGRAM}"))?;
    stage.view("::memstat", Keep::All)?;
    stage.view("::swapinfo", Keep::All)?;
    let machine = stage.world().machine();
    let now = MemStat::of(machine.cx(), machine.db());
    let anons = machine.swap().live();
    stage.check("no anonymous page and no anon is left", now.anon.get() == 0 && anons == 0);
    stage.check("every swap slot is free", areas(stage).iter().all(|(pages, free)| pages == free));
    // Process 0 had its top table at boot already.
    stage.check("the kernel has no more pages than at boot", now.kernel <= boot.kernel);
    stage.check("all pages are accounted for", adds_up(&now) && now.physical == boot.physical);
    Ok(())
}
