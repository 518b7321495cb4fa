//! Anonymous memory: made, shared, parted.

use anyhow::Result;
use page_db::{Identity, PageId, Pfn, Prot, VirtAddr};
use segvm::machine::STACK_TOP;
use segvm::script::Outcome;
use segvm::script::outcome::PAGE_BYTES;

use super::PROGRAM;
use super::program::frame;
use super::stage::{Keep, Stage};
use super::subject::Subject;

/// Pages the heap gets.
pub(super) const HEAP_PAGES: u64 = 512;

/// The address of a page of the heap.
pub(super) fn heap_page(stage: &Stage<'_>, page: u64) -> Result<u64> {
    Ok(stage.process(PROGRAM)?.heap().0 + page * PAGE_BYTES)
}

/// Where the break is.
fn p_break(stage: &Stage<'_>) -> u64 {
    stage.process(PROGRAM).map_or(0, |p| p.heap().1)
}

/// `brk`, and zeros on demand.
pub(super) fn heap(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "The heap: memory without a file",
        "Ch. 9.6: anonymous memory has no pages until it is touched; the first store finds an empty \
         slot in the anon map, makes an anon with one reference, and fills a page with zeros.",
    );
    stage.run(&format!("brk ${PROGRAM} {HEAP_PAGES}"))?;
    let start = VirtAddr::new(heap_page(stage, 0)?)?;
    let p = stage.process(PROGRAM)?;
    let segment = p.space().range_at(p.cx(), start);
    if let Some(segment) = segment {
        let line = [format!("{:x}", segment.start().get())];
        stage.view(&format!("::pmap ${PROGRAM}"), Keep::Lines(0, &line))?;
        if segment.start() < start {
            stage.say("The heap goes on where the bss ends, so the two are one segment.");
        }
    }
    stage.check(
        "the break is where a segment ends",
        segment.is_some_and(|s| s.end() == p_break(stage)),
    );
    let before = stage.counters(["zfod", "cow_fault"]);
    stage.run(&format!("write ${PROGRAM} b:0 0+4 65; write ${PROGRAM} b:1 0+4 75"))?;
    let [zeros, copies] = stage.rose(before);
    stage.view(&format!("::anon ${PROGRAM} b:0"), Keep::All)?;
    stage.view(&format!("::anon ${PROGRAM} b:1"), Keep::All)?;
    let rest = stage.run(&format!("read ${PROGRAM} b:0 0+16"))?;
    stage.check("two pages were filled with zeros, none copied", (zeros, copies) == (2, 0));
    stage.check("beside what was stored there are zeros", begins(&rest, b"ABCD\0\0\0\0"));
    stage.check("one reference each", refs(stage, PROGRAM, 0)? == Some(1));
    Ok(())
}

/// Whether the bytes that were read begin so.
pub(super) fn begins(outcome: &Outcome, want: &[u8]) -> bool {
    match outcome {
        Outcome::Ok(facts) => facts.b.unwrap_or_default().as_slice().starts_with(want),
        _ => false,
    }
}

/// The identity of the page behind a page of the heap.
fn identity(stage: &Stage<'_>, process: &str, page: u64) -> Result<Option<(PageId, Identity)>> {
    let at = heap_page(stage, page)?;
    let Some(pfn) = frame(stage, process, at)? else { return Ok(None) };
    let db = stage.world().machine().db();
    let found = db.pages().of_pfn(Pfn(pfn)).and_then(|id| Some((id, db.page(id).identity()?)));
    Ok(found)
}

/// The references of the anon behind a page of the heap that is mapped.
fn refs(stage: &Stage<'_>, process: &str, page: u64) -> Result<Option<u32>> {
    let machine = stage.world().machine();
    let name = identity(stage, process, page)?.map(|(_, name)| name);
    let number = name.and_then(|name| machine.swap().number_of(name));
    Ok(number.map(|n| machine.anon().anons().refs(n)))
}

/// The rights of a translation, if there is one.
fn rights(stage: &Stage<'_>, process: &str, page: u64) -> Result<Option<Prot>> {
    let at = VirtAddr::new(heap_page(stage, page)?)?;
    let p = stage.process(process)?;
    let found = p.space().hat().probe(p.cx(), at);
    Ok(found.map(|t| t.prot))
}

/// A store far below the stack.
pub(super) fn stack(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "The stack grows",
        "Ch. 9: a fault on an unmapped address within the limit below the stack lets its segment grow \
         down to that page, and then is a fault like any other.",
    );
    let lines = ["stack".to_owned()];
    stage.view(&format!("::pmap ${PROGRAM}"), Keep::Lines(0, &lines))?;
    let at = STACK_TOP - 16 * PAGE_BYTES;
    stage.run(&format!("write ${PROGRAM} {at:#x} 0+8 48; read ${PROGRAM} {at:#x} 0+8"))?;
    stage.view(&format!("::pmap ${PROGRAM}"), Keep::Lines(0, &lines))?;
    let size = stage.process(PROGRAM)?.stack().map(|s| s.len());
    stage.check("the stack has 16 pages", size == Some(16 * PAGE_BYTES));
    let far = STACK_TOP - (1 << 30);
    let outcome = stage.attempt(&format!("read ${PROGRAM} {far:#x} 0+1"))?;
    stage.check("beyond its limit there is nothing", matches!(outcome, Outcome::Segv { .. }));
    Ok(())
}

/// fork.
pub(super) fn fork(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "fork: two processes, the same anons",
        "Ch. 9.7: the child gets an anon map of its own with the same anons, each with one reference \
         more; an anon with more than one is mapped read-only, so the parent's translations lose the \
         right to write.",
    );
    let before = stage.counters(["frame_allocs", "bytes_copied"]);
    stage.run(&format!("fork ${PROGRAM} $child"))?;
    let [frames, copied] = stage.rose(before);
    stage.view(&format!("::anon ${PROGRAM} b:0"), Keep::All)?;
    let read = stage.run("read $child b:0 0+4")?;
    stage.view(&format!("::vatopfn ${PROGRAM} b:0"), Keep::All)?;
    stage.view("::vatopfn $child b:0", Keep::All)?;
    stage.say(&format!("Bytes of pages copied: {copied}; frames taken for page tables: {frames}."));
    stage.check("no page was copied", copied == 0);
    stage.check("the child reads the parent's bytes", begins(&read, b"ABCD"));
    stage.check("two references", refs(stage, PROGRAM, 0)? == Some(2));
    let same = frame(stage, PROGRAM, heap_page(stage, 0)?)?
        == frame(stage, "child", heap_page(stage, 0)?)?;
    stage.check("both map the same frame", same);
    let writable = |r: Option<Prot>| r.is_none_or(|r| r.contains(Prot::WRITE));
    let none = !writable(rights(stage, PROGRAM, 0)?) && !writable(rights(stage, "child", 0)?);
    stage.check("neither may write to it", none);
    Ok(())
}

/// Stores on both sides of a fork.
pub(super) fn both_sides(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "Both sides store",
        "Ch. 9.7: the child's store finds two references and copies the anon and its page (case 1B); the \
         parent's store then finds one, and takes the old page as it is (case 1A).",
    );
    let cases = ["case_1b", "case_1a", "cow_fault"];
    let before = stage.counters(cases);
    stage.run("write $child b:1 0+4 97")?;
    let [copied, _, cow] = stage.rose(before);
    stage.view("::anon $child b:1", Keep::All)?;
    let before = stage.counters(cases);
    stage.run(&format!("write ${PROGRAM} b:1 0+1 33"))?;
    let [again, taken, cow_again] = stage.rose(before);
    stage.view(&format!("::anon ${PROGRAM} b:1"), Keep::All)?;
    let child = stage.run("read $child b:1 0+4")?;
    let parent = stage.run(&format!("read ${PROGRAM} b:1 0+4"))?;
    stage.check("the child's store was case 1B, one copy", (copied, cow) == (1, 1));
    stage.check("the parent's was case 1A, no copy", (again, taken, cow_again) == (0, 1, 0));
    stage.check("each reads its own bytes", begins(&child, b"abcd") && begins(&parent, b"!LMN"));
    let one = refs(stage, PROGRAM, 1)? == Some(1) && refs(stage, "child", 1)? == Some(1);
    stage.check("one reference each", one && refs(stage, PROGRAM, 0)? == Some(2));
    Ok(())
}

/// From a frame to those who map it.
pub(super) fn from_below(stage: &mut Stage<'_>, _: &Subject) -> Result<()> {
    stage.step(
        "From below: whose page is this?",
        "Fig. 10.3, bottom-up: a page structure holds its identity <vnode, offset>, for anonymous memory \
         a name in swapfs, and the list of translations that lead to it.",
    );
    let Some((page, name)) = identity(stage, PROGRAM, 0)? else {
        stage.check("the heap's first page is mapped", false);
        return Ok(());
    };
    let machine = stage.world().machine();
    let pfn = machine.db().pfn(page).0;
    let share = machine.db().share_count(machine.cx(), page);
    let found = machine.db().exists(machine.cx(), name);
    let listed = machine.db().vnode_pages(machine.cx(), name.vnode).contains(&page);
    let anon = machine.swap().number_of(name);
    stage.view(&format!("::page pfn {pfn:#x}"), Keep::All)?;
    stage.view(&format!("::walk ${PROGRAM} b:0"), Keep::All)?;
    stage.check("the page hash finds this page by that name", found == Some(page));
    stage.check("it is on its vnode's list", listed);
    stage.check("its name is an anon's", anon.is_some());
    stage.check("two translations lead to it", share == 2);
    Ok(())
}
