//! Law 7: whatever is asked for, the answer is an errno or a signal, and says what about.
//!
//! Tables of wrong calls. Each row has a fresh machine, makes one call, compares the whole answer (errno or signal, and the text that
//! names the address, the range, the file or the area), and then checks every invariant and that the process lives on.
//!
//! ```text
//!   page   0   4   8  10  11    16      20    24  27   32
//!          ├───┤   ├───┼───┤    ├────────┤     ├───┤   ├┤
//!          rw- anon r-- ---     rw- shared     rw-     r-- shared, by a descriptor that only reads
//!          private  private     file of 2.5    private
//!                               pages          file
//! ```

mod access;
mod calls;
mod drivers;
mod files;
mod foreign;
mod maps;
mod remaps;
mod short;
mod spaces;

use crate::world::{ANON, NONE, PAGE, PRIVATE, R, RW, SHARED, at, map};
use page_db::Cx;
use segvm::Machine;
use segvm::files::{File, FileHandle, OpenMode};
use segvm::machine::{AccessError, Process, SysError};
use segvm::script::outcome::Errno;
use std::sync::Arc;

/// Bytes of the file.
const SIZE: u64 = 5 * PAGE / 2;
/// First address past the user's.
const TOP: u64 = segvm::machine::USER_TOP;
/// Inside the hole of the canonical addresses.
const HOLE: u64 = 0x9000_0000_0000;
/// A kernel address.
const KERNEL: u64 = 0xffff_8000_0000_0000;
const HUGE: u64 = 1 << 63;
const MAX: u64 = u64::MAX;

/// What a row works on.
struct Ground {
    m: Machine,
    p: Process,
    file: Arc<File>,
    rw: FileHandle,
    ro: FileHandle,
    wo: FileHandle,
}

impl Ground {
    fn new() -> Self {
        Self::on(Machine::builder().frames(512).build().unwrap())
    }
    fn on(m: Machine) -> Self {
        let p = m.spawn("p").unwrap();
        let file = m.create_file("data", SIZE).unwrap();
        let open = |mode| FileHandle::new(Arc::clone(&file), mode);
        let (rw, ro, wo) =
            (open(OpenMode::ReadWrite), open(OpenMode::ReadOnly), open(OpenMode::WriteOnly));
        map(&p, 0, 4, RW, PRIVATE | ANON, None).unwrap();
        map(&p, 8, 2, R, PRIVATE | ANON, None).unwrap();
        map(&p, 10, 1, NONE, PRIVATE | ANON, None).unwrap();
        map(&p, 16, 4, RW, SHARED, Some(&rw)).unwrap();
        map(&p, 24, 3, RW, PRIVATE, Some(&rw)).unwrap();
        map(&p, 32, 1, R, SHARED, Some(&ro)).unwrap();
        p.store(at(0), b"alive").unwrap();
        Self { m, p, file, rw, ro, wo }
    }
    fn cx(&self) -> &Cx {
        self.m.cx()
    }
}

/// One wrong call.
struct Row {
    /// What is wrong with it.
    what: &'static str,
    /// Makes it; answers what was said.
    call: fn(&Ground) -> String,
    /// What is to be said.
    answer: &'static str,
}

const fn row(what: &'static str, call: fn(&Ground) -> String, answer: &'static str) -> Row {
    Row { what, call, answer }
}

/// Makes every call of a table on a machine of its own.
fn run(ground: fn() -> Ground, rows: &[Row]) {
    let mut wrong = String::new();
    for Row { what, call, answer } in rows {
        let g = ground();
        let said = call(&g);
        if said != *answer {
            wrong += &format!("{what}:\n    want {answer}\n    said {said}\n");
        }
        if let Err(v) = g.m.verify() {
            wrong += &format!("{what}:\n    breaks {v}\n");
        }
        if !g.p.has_exited() {
            let mut alive = [0; 5];
            g.p.load(at(0), &mut alive).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(&alive, b"alive", "{what}");
            g.p.exit();
        }
        g.m.verify().unwrap_or_else(|v| panic!("{what}, after the exit: {v}"));
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// An errno by name.
fn errno(n: i32) -> &'static str {
    Errno::from_number(n).map_or("no errno", Errno::name)
}

/// What a system call says: the errno's name and the cause, or the value.
fn said<T: Answer>(r: Result<T, SysError>) -> String {
    match r {
        Ok(value) => value.words(),
        Err(e) => format!("{}: {}", errno(e.errno), e.cause),
    }
}

/// What becomes of an access.
fn died(r: Result<(), AccessError>) -> String {
    r.map_or_else(|e| e.to_string(), |()| "done".to_owned())
}

/// What a call that succeeds says.
trait Answer {
    fn words(&self) -> String;
}

impl Answer for () {
    fn words(&self) -> String {
        "done".to_owned()
    }
}
impl Answer for u64 {
    fn words(&self) -> String {
        format!("{self:#x}")
    }
}
impl Answer for Vec<u8> {
    fn words(&self) -> String {
        format!("{self:x?}")
    }
}
