//! A segment driver in fifty lines: `seg_mirror`, a range in which every page shows the same page of a file, read-only.
//!
//! It implements the required core of `SegOps` and inherits the rest. Run it with `cargo run --example driver`. That it keeps the contract of
//! `SegOps` is shown in `tests/contract/seg.rs`.

mod seg_mirror;

use addr_space::Signal;
use page_db::VirtRange;
use seg_mirror::SegMirror;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = segvm::Machine::builder().build()?;
    let file = machine.create_file("poem", 0)?;
    file.pwrite(machine.cx(), machine.db(), 0, b"the same page, over and over")?;
    let process = machine.spawn("reader")?;
    let range = VirtRange::exact(0x10_0000, 16 << 20)?;
    process.space().map(process.cx(), range, &SegMirror(file))?;
    for at in [0, 4096, 9 << 20] {
        let mut text = [0; 13];
        process.load(range.start().get() + at, &mut text)?;
        assert_eq!(&text, b"the same page");
    }
    let refused = process.store(range.start().get(), b"x");
    assert!(refused.is_err_and(|e| e.signal == Signal::SegvAccErr));
    println!("{}", process.space().pmap(process.cx()));
    machine.verify()?;
    process.exit();
    Ok(())
}
