//! From boot to a program with its first private pages.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use page_db::dump::MemStat;
use page_db::{Pfn, VirtAddr, Vnode};
use segvm::files::{File, Piece};
use segvm::machine::USER_RANGE;
use segvm::script::ast::{FileRef, OpenMode};
use segvm::script::outcome::PAGE_BYTES;
use segvm::script::{FileSlot, Operation, Outcome};

use super::stage::{Keep, Stage};
use super::subject::{Bytes, Subject};
use super::{PROGRAM, builtin, subject_of};

/// Memory as it was before anything ran.
pub(super) fn boot(stage: &mut Stage<'_>) -> Result<MemStat> {
    stage.step(
        "The machine boots",
        "Fig. 10.2: every frame has one page structure, and the lists that structure is on say what \
         the frame is used for.",
    );
    stage.view("::memstat", Keep::All)?;
    let machine = stage.world().machine();
    let now = MemStat::of(machine.cx(), machine.db());
    stage.check("free, cached, used and kernel pages add up to the frames", adds_up(&now));
    Ok(now)
}

/// Every frame is in exactly one row.
pub(super) fn adds_up(m: &MemStat) -> bool {
    let used = [m.kernel, m.anon, m.exec, m.page_cache, m.cachelist, m.freelist];
    used.iter().map(|n| n.get()).sum::<u64>() == m.physical.get()
}

/// `kas`.
pub(super) fn kernel(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "The kernel is an address space too",
        "Fig. 11.2: kas is an address space whose segments belong to kernel drivers; its half is in \
         every process, for the supervisor only.",
    );
    stage.view("::seg kas", Keep::All)?;
    let outcome = stage.attempt("read 0 @kern 1")?;
    stage.check("user code cannot read there", matches!(outcome, Outcome::Segv { .. }));
    Ok(())
}

/// Gives the program's file the name `$exe`, and process 0 the name `$prog`.
pub(super) fn open(stage: &mut Stage<'_>, path: Option<PathBuf>) -> Result<Subject> {
    let Some(path) = path else {
        stage.step(EXEC_TITLE, EXEC);
        let bytes = builtin::program();
        stage.run(&format!("proc ${PROGRAM} = 0; file $exe {}", bytes.len()))?;
        stage.say("The file is filled with a small program that is built into this command.");
        let file = exe(stage)?;
        let machine = stage.world().machine();
        file.pwrite(machine.cx(), machine.db(), 0, &bytes)?;
        return subject_of(stage, Bytes::Memory(bytes), &file);
    };
    let host = Bytes::open(&path)?;
    let path = path.to_str().context("a script cannot write this path: it is not UTF-8")?;
    stage.step(EXEC_TITLE, EXEC);
    stage.run(&format!("proc ${PROGRAM} = 0"))?;
    let file = FileRef::Name("exe".into());
    let open = Operation::HostFile { file, path: path.into(), mode: OpenMode::ReadOnly };
    stage.run(&open.to_string())?;
    let file = exe(stage)?;
    subject_of(stage, host, &file)
}

/// The first named file.
fn exe(stage: &Stage<'_>) -> Result<Arc<File>> {
    let file = stage.world().file_in(FileSlot(16)).context("the program's file is not there")?;
    Ok(Arc::clone(&file.vnode))
}

const EXEC_TITLE: &str = "exec: a program becomes segments";

const EXEC: &str = "Fig. 9.10: a seg_vn segment leads to a vnode and an offset; the segments hang in the \
                    address space's AVL tree, and no page has been touched but those that exec itself needed.";

/// The step that [`open`] began.
pub(super) fn exec(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.run(&format!("exec ${PROGRAM} $exe"))?;
    let pieces = &subject.program.pieces;
    let zero = pieces.iter().filter(|p| matches!(p, Piece::Zero { .. })).count();
    let bss =
        if zero == 0 { "its bss fits behind the data" } else { "its bss is memory without a file" };
    stage.say(&format!(
        "{} segments come from the file, text and data alike; {bss}; the stack has one page.",
        pieces.len() - zero
    ));
    stage.view(&format!("::pmap ${PROGRAM}"), Keep::Ends(12, 2))?;
    stage.view(&format!("::segtree ${PROGRAM}"), Keep::Ends(14, 1))?;
    let p = stage.process(PROGRAM)?;
    let (space, cx) = (p.space(), p.cx());
    let placed = subject.program.pieces.iter().all(|piece| {
        let start = piece.range().start();
        match piece {
            Piece::File { offset, .. } => space.offset_at(cx, start) == Some(*offset),
            Piece::Zero { .. } => matches!(space.vnode_at(cx, start), Some(None)),
        }
    });
    drop(space);
    stage.check("every segment of the file is mapped where its header says", placed);
    Ok(())
}

/// From an address that nobody has touched to a translation.
pub(super) fn first_fault(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.step(
        "The first fault, step by step",
        "Fig. 9.11, top-down: process, address space, segment, vnode and offset; that pair is the \
         identity under which the page hash finds the page, and the hat then loads its translation.",
    );
    let at = subject.entry();
    stage.view(&format!("::vatopfn ${PROGRAM} {at:#x}"), Keep::All)?;
    let before = stage.counters(["as_fault", "case_2a"]);
    let fetched = stage.run(&format!("fetch ${PROGRAM} {at:#x}"))?;
    let [faults, lower] = stage.rose(before);
    stage.view(&format!("::walk ${PROGRAM} {at:#x}"), Keep::All)?;
    stage.view(&format!("::vatopfn ${PROGRAM} {at:#x}"), Keep::All)?;
    stage.check(
        "one fault, which mapped the file's page as it is (case 2A)",
        (faults, lower) == (1, 1),
    );
    check_bytes(stage, subject, at, &fetched)
}

/// What an access found is what the file has there.
fn check_bytes(stage: &mut Stage<'_>, subject: &Subject, at: u64, got: &Outcome) -> Result<()> {
    let got = match got {
        Outcome::Ok(facts) => facts.b.unwrap_or_default(),
        _ => Default::default(),
    };
    let got = got.as_slice();
    let want = subject.original(at, got.len())?;
    stage.check(
        "the instruction bytes are those in the file",
        !got.is_empty() && want.as_deref() == Some(got),
    );
    Ok(())
}

/// The page tables behind the translation.
pub(super) fn tables(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.step(
        "The hat: page tables in frames",
        "Ch. 12: the hat keeps translations in page tables that the processors walk; each table is a frame \
         like any other, and all of it can be made again from the segments.",
    );
    let at = subject.entry();
    stage.view(&format!("::htable ${PROGRAM}"), Keep::Ends(14, 0))?;
    let before = stage.counters(["as_fault"]);
    stage.run(&format!("fetch ${PROGRAM} {at:#x} cpu=1"))?;
    stage.check(
        "the other processor finds the translation without a fault",
        stage.rose(before) == [0],
    );
    let p = stage.process(PROGRAM)?;
    let (hat, mut walked, mut stray) = (Arc::clone(p.space().hat()), 0, 0);
    let space = p.space();
    hat.walk(p.cx(), USER_RANGE, &mut |addr, _| {
        walked += 1;
        stray += u64::from(space.range_at(p.cx(), addr).is_none());
    });
    let resident = hat.resident();
    stage.check(
        "every translation lies in a segment, and all are counted",
        stray == 0 && walked == resident,
    );
    Ok(())
}

/// A second process that runs the same file.
pub(super) fn shared_text(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.step(
        "One page, two processes",
        "Fig. 10.2 (a): the identity <vnode, offset> is unique, so another process that maps the same \
         file finds the same page in the page hash, without i/o.",
    );
    let at = subject.entry();
    stage.run(&format!("fork ${PROGRAM} $twin; exec $twin $exe"))?;
    let before = stage.counters(["maj_fault", "fspgin", "execpgin"]);
    let fetched = stage.run(&format!("fetch $twin {at:#x}"))?;
    let io = stage.rose(before);
    stage.view(&format!("::vatopfn ${PROGRAM} {at:#x}"), Keep::All)?;
    stage.view(&format!("::vatopfn $twin {at:#x}"), Keep::All)?;
    let (one, two) = (frame(stage, PROGRAM, at)?, frame(stage, "twin", at)?);
    if let Some(pfn) = one {
        stage.view(&format!("::page pfn {pfn:#x}"), Keep::All)?;
    }
    stage.check("both have the same frame", one.is_some() && one == two);
    stage.check("nothing was read from the file", io == [0; 3]);
    check_bytes(stage, subject, at, &fetched)
}

/// The frame behind an address of a process.
pub(super) fn frame(stage: &Stage<'_>, process: &str, at: u64) -> Result<Option<u64>> {
    let p = stage.process(process)?;
    let found = p.space().hat().probe(p.cx(), VirtAddr::new(at)?);
    Ok(found.map(|t| t.pfn.0))
}

/// The first stores of a program: those of its dynamic linker.
pub(super) fn relocation(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    stage.step(
        "The first stores: copy-on-write from the file",
        "Fig. 9.11: a store to a private file page makes an anon, copies the file's page into it (case 2B), \
         and from then on the anon map comes before the vnode.",
    );
    let Some(data) = subject.data_page() else {
        stage.say("This program has no writable data, so there is nothing to store into.");
        return Ok(());
    };
    let first = subject.program.image.relative.first();
    let at = first.map_or(data, |r| r.vaddr.wrapping_add(subject.program.base));
    // A page whose end exec had to clear has been stored to already.
    let fresh = !is_anon(stage, at)?;
    let before = stage.counters(["case_2b", "cow_fault"]);
    match first {
        None => {
            stage.say(
                "This program asks for no relative relocation; its data is stored into instead.",
            );
            stage.run(&format!("write ${PROGRAM} {data:#x} 0+16 65"))?;
        }
        Some(_) => {
            let done = stage.process(PROGRAM)?.relocate(&subject.program);
            let words = done.as_ref().map_or(0, |words| *words);
            stage.say(&format!(
                "The dynamic linker's work is done: {words} words get the load address {:#x} added.",
                subject.program.base
            ));
            stage.check("every word can be relocated", done.is_ok());
        }
    }
    let [made, copied] = stage.rose(before);
    stage.view(&format!("::walk ${PROGRAM} {at:#x}"), Keep::All)?;
    stage.view(&format!("::anon ${PROGRAM} {at:#x}"), Keep::Ends(8, 0))?;
    stage.say(&format!("Anons made: {made}, {copied} of them with a copy of the file's page."));
    if fresh {
        stage.check(
            "stores made anons with copies of the file's pages",
            copied > 0 && made >= copied,
        );
    }
    stage.check("the page has a name in swapfs now", is_anon(stage, at)?);
    check_words(stage, subject)?;
    check_file(stage, subject, at)
}

/// Whether the page that is mapped at `at` is anonymous.
fn is_anon(stage: &Stage<'_>, at: u64) -> Result<bool> {
    let Some(pfn) = frame(stage, PROGRAM, at)? else { return Ok(false) };
    let machine = stage.world().machine();
    let page = machine.db().pages().of_pfn(Pfn(pfn));
    let name = page.and_then(|page| machine.db().page(page).identity());
    Ok(name.is_some_and(|name| machine.swap().number_of(name).is_some()))
}

/// Every relocated word holds what it should.
fn check_words(stage: &mut Stage<'_>, subject: &Subject) -> Result<()> {
    let relocations = &subject.program.image.relative;
    let p = stage.process(PROGRAM)?;
    let mut right = 0;
    for r in relocations {
        let at = r.vaddr.wrapping_add(subject.program.base);
        let addend = match r.addend {
            Some(addend) => Some(addend),
            None => word(subject.original(at, 8)?),
        };
        let mut bytes = [0; 8];
        let found = p.load(at, &mut bytes).is_ok().then(|| u64::from_le_bytes(bytes));
        right += usize::from(found == addend.map(|a| a.wrapping_add(subject.program.base)));
    }
    if !relocations.is_empty() {
        let all = relocations.len();
        stage.check(format!("{right} of {all} words hold what they should"), right == all);
    }
    Ok(())
}

fn word(bytes: Option<Vec<u8>>) -> Option<u64> {
    Some(u64::from_le_bytes(bytes?.try_into().ok()?))
}

/// The file has not changed, and the other process still sees it.
fn check_file(stage: &mut Stage<'_>, subject: &Subject, at: u64) -> Result<()> {
    let Some(offset) = subject.offset_of(at) else { return Ok(()) };
    let offset = offset & !(PAGE_BYTES - 1);
    let want = subject.bytes.at(offset, PAGE_BYTES as usize)?;
    let mut got = vec![0; PAGE_BYTES as usize];
    let file = exe(stage)?;
    let machine = stage.world().machine();
    let n = file.pread(machine.cx(), machine.db(), offset, &mut got)?;
    let whole = n as u64 == PAGE_BYTES.min(file.size() - offset);
    stage.check("the file's own page has its old bytes", whole && got == want);
    Ok(())
}
