//! The profiles: which operations are drawn, and how often.

/// What a random script is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Mapping, unmapping, hints, holes.
    Map,
    /// Trees of forks, stores on all sides.
    Cow,
    /// Shared and private files, truncation, copying in and out.
    File,
    /// Protection and splits.
    Prot,
    /// Writing back, advice, locks, inheritance.
    Sync,
    /// One wrong argument at a time.
    Err,
    /// Everything.
    Mix,
    /// Mappings that grow, shrink and move. illumos and the trace language's other executors have no such call, so it is not among [`Profile::ALL`].
    Remap,
    /// What others do with a process's memory: devices that pin it, loans, second views, watches, frames and swap areas that come and go. This library alone has
    /// it, so it is not among [`Profile::ALL`] either.
    Held,
}

impl Profile {
    /// Every profile of the trace language.
    pub const ALL: [Profile; 7] = [
        Profile::Map,
        Profile::Cow,
        Profile::File,
        Profile::Prot,
        Profile::Sync,
        Profile::Err,
        Profile::Mix,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Map => "map",
            Profile::Cow => "cow",
            Profile::File => "file",
            Profile::Prot => "prot",
            Profile::Sync => "sync",
            Profile::Err => "err",
            Profile::Mix => "mix",
            Profile::Remap => "remap",
            Profile::Held => "held",
        }
    }

    /// The profile of this name.
    pub fn from_name(name: &str) -> Option<Profile> {
        Self::ALL.into_iter().chain([Self::Remap, Self::Held]).find(|p| p.name() == name)
    }

    /// Kinds of operations and how often each is drawn.
    pub(super) fn weights(self) -> Vec<(Kind, u32)> {
        let table = match self {
            Profile::Map => {
                "map=40 unmap=20 write=15 read=15 protect=3 digest=2 incore=2 fork=1 exit=1 \
                 err=3 brk=2 pageout=1"
            }
            Profile::Cow => {
                "fork=8 exit=5 write=35 read=20 map=10 unmap=5 protect=4 digest=2 inherit=5 \
                 pageout=2 fread=2 fwrite=2 free=2 dontneed=2 pwrite=2"
            }
            Profile::File => {
                "map=20 write=18 read=15 truncate=12 pwrite=8 pread=4 fread=4 fwrite=4 unmap=5 \
                 sync=3 fork=3 exit=2 fclose=1 dontneed=3 file=2 pageout=1 protect=3"
            }
            Profile::Prot => {
                "protect=40 map=12 unmap=6 write=15 read=12 fork=3 exit=2 digest=3 err=2 \
                 pageout=1 sync=1 brk=2"
            }
            Profile::Sync => {
                "sync=15 advise=8 dontneed=8 free=4 lock=10 unlock=8 incore=8 map=12 write=12 \
                 read=8 fork=3 exit=2 unmap=4 pwrite=3 truncate=3 inherit=4 pageout=3 lockall=1"
            }
            Profile::Err => {
                "err=45 map=15 unmap=8 protect=8 read=6 write=6 sync=4 advise=4 lock=2 brk=4 \
                 fread=2 fwrite=2"
            }
            Profile::Mix => {
                "map=14 unmap=7 write=16 read=10 protect=8 fork=3 exit=2 truncate=4 pwrite=3 \
                 pread=2 fread=2 fwrite=2 sync=3 advise=3 dontneed=3 free=2 lock=3 unlock=3 \
                 incore=2 inherit=3 brk=3 pageout=2 digest=1 err=2 fclose=1 file=1 lockall=1"
            }
            Profile::Remap => {
                "remap=24 map=16 write=18 read=12 unmap=4 protect=4 fork=3 exit=2 digest=1 inherit=3 \
                 truncate=2 pwrite=1 dontneed=1 pageout=2 brk=1 sync=1"
            }
            Profile::Held => {
                "pin=10 loan=8 loananon=9 share=9 watch=5 retire=5 squeeze=4 swap=6 map=14 write=18 \
                 read=8 fork=4 exit=2 unmap=4 protect=4 truncate=3 pwrite=3 fread=1 fwrite=1 sync=2 \
                 dontneed=3 advise=1 free=1 lock=2 unlock=2 inherit=3 remap=3 pageout=5 digest=1 \
                 brk=1"
            }
        };
        table.split_whitespace().map(weight).collect()
    }
}

/// Reads `kind=weight`.
fn weight(word: &str) -> (Kind, u32) {
    let (kind, weight) = word.split_once('=').expect("the tables hold kind=weight");
    let kind = Kind::from_word(kind).expect("the tables hold kinds");
    (kind, weight.parse().expect("the tables hold numbers"))
}

/// Defines [`Kind`] with its names.
macro_rules! kinds {
    ($($kind:ident = $word:literal),* $(,)?) => {
        /// A kind of operation to draw.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($kind),* }

        impl Kind {
            fn from_word(word: &str) -> Option<Kind> {
                match word { $($word => Some(Kind::$kind),)* _ => None }
            }
        }
    };
}

kinds! {
    Map = "map", Unmap = "unmap", Protect = "protect", Write = "write", Read = "read", Fork =
    "fork", Exit = "exit", File = "file", Truncate = "truncate", Pwrite = "pwrite", Pread =
    "pread", Fread = "fread", Fwrite = "fwrite", Fclose = "fclose", Sync = "sync", Advise =
    "advise", Inherit = "inherit", DontNeed = "dontneed", Free = "free", Lock = "lock", Unlock =
    "unlock", LockAll = "lockall", Incore = "incore", Brk = "brk", Pageout = "pageout", Digest =
    "digest", Err = "err", Remap = "remap", Pin = "pin", Loan = "loan", LoanAnon = "loananon", Share =
    "share", Watch = "watch", Retire = "retire", Squeeze = "squeeze", Swap = "swap",
}

/// One wrong argument at a time; `{p}`, `{a}`, `{k}`, `{f}` are a process, an address, a number of
/// pages, a file.
pub(super) const MISTAKES: &[&str] = &[
    "map {p} {a} 0 rw priv fixed anon",
    "map {p} {a}+1 {k} rw priv fixed anon",
    "map {p} {a} {k} rw neither fixed anon",
    "map {p} {a} {k} rw both fixed anon",
    "map {p} {a} @max rw priv fixed anon",
    "map {p} {a} @maxpg rw priv hint anon",
    "map {p} {a} @wrap rw shared fixed anon",
    "map {p} @kern {k} rw priv fixed anon",
    "map {p} @top 4 rw priv fixed anon",
    "map {p} @null {k} rw priv hint anon",
    "map {p} {a} {k} bad priv hint anon",
    "map {p} {a} {k} r priv fixed file 15 0",
    "unmap {p} {a} 0",
    "unmap {p} {a}+5 {k}",
    "unmap {p} {a} @max",
    "unmap {p} {a} @wrap",
    "unmap {p} @kern 1",
    "protect {p} {a}+1 {k} r",
    "protect {p} {a} 0 r",
    "protect {p} {a} @max r",
    "protect {p} {a} @wrap r",
    "protect {p} @kern 1 r",
    "protect {p} {a} {k} bad",
    "advise {p} {a}+7 {k} normal",
    "advise {p} {a} {k} bad",
    "advise {p} {a} 0 normal",
    "advise {p} {a} @max normal",
    "advise {p} {a} @wrap normal",
    "sync {p} {a}+1 {k} sync",
    "sync {p} {a} {k} sync+async",
    "sync {p} {a} {k} bad",
    "sync {p} {a} 0 sync",
    "sync {p} {a} @max sync",
    "sync {p} {a} @wrap sync",
    "incore {p} {a}+1 {k}",
    "incore {p} {a} @max",
    "incore {p} {a} 0",
    "lock {p} {a}+1 {k}",
    "lock {p} {a} 0",
    "lock {p} {a} @wrap",
    "unlock {p} {a}+1 {k}",
    "unlock {p} {a} @wrap",
    "lockall {p} nothing",
    "read {p} @kern 1",
    "write {p} @null 1 1",
    "read {p} @top+4090 1",
    "map {p} {a} {k} r priv fixed file {f} 0+100",
    "map {p} {a} {k} rw both fixed file {f} 0",
    "map {p} {a} {k} rw shared fixed file {f} 0",
    "map {p} {a} {k} r priv fixed file {f} 2251799813685248",
    "map {p} {a} {k} r priv fixed file {f} 2251799813685247",
    "fread {p} {f} 0 @kern 1",
    "fwrite {p} {f} 0 @kern 1",
    "fwrite {p} {f} 0 {a} @max",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_can_be_read() {
        for profile in Profile::ALL.into_iter().chain([Profile::Remap, Profile::Held]) {
            assert!(profile.weights().len() > 10, "{profile:?}");
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
        }
    }
}
