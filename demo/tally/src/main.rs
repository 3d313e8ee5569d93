mod store;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tally.log".into());
    let mut store = store::Store::open(&path).expect("open");
    store.add("boot", 1);
    println!("{}", store.total("boot"));
}
