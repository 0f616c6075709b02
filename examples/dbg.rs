use pyvorin_recovery::sqlite::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let wal = std::fs::read(&a[1]).unwrap();
    let db = std::fs::read(&a[2]).unwrap();
    let shm = std::fs::read(&a[3]).ok().and_then(|b| wal::parse_shm(&b));
    let scan = wal::scan(&wal, None).unwrap();
    println!(
        "hdr {:?} n {} shm {:?}",
        scan.header,
        scan.len(),
        shm.as_ref().map(|s| (s.max_frame, s.salt, s.backfilled, s.frame_pages.len()))
    );
    if let Some(s) = &shm {
        println!("agrees {}", resync::agrees(&scan, s));
        for (i, (f, p)) in scan.frames.iter().zip(&s.frame_pages).enumerate() {
            if f.page != *p {
                println!("differs {} {:?} {}", i + 1, f, p)
            }
        }
    }
    let g = resync::examine(&scan, &wal, Some(&db), 0, shm.as_ref()).unwrap().unwrap();
    println!("{:#?}", g.segments);
    println!("{:?}", g.pages.len());
}
