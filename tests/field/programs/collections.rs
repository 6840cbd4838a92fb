// Strings, vectors, maps and boxes, two threads, some kept on purpose: what Rust programs allocate.
use std::collections::{BTreeMap, HashMap};
use std::thread;

#[derive(Debug)]
enum Node {
    Leaf(String),
    Branch(Vec<Node>),
}

fn grow(depth: usize) -> Node {
    if depth == 0 {
        return Node::Leaf(format!("leaf {:>20}", depth));
    }
    Node::Branch((0..3).map(|_| grow(depth - 1)).collect())
}

fn weigh(node: &Node) -> usize {
    match node {
        Node::Leaf(text) => text.len(),
        Node::Branch(nodes) => nodes.iter().map(weigh).sum(),
    }
}

fn main() {
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..3000 {
        *words.entry(format!("word number {}", i * 31 % 701)).or_insert(0) += 1;
    }
    let threads: Vec<_> = (0..2)
        .map(|n| thread::spawn(move || (0..500u64).map(|i| Box::new(i * n)).map(|b| *b).sum::<u64>()))
        .collect();
    let sums: Vec<u64> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let boxes: HashMap<u32, Box<[u8]>> = (0..50).map(|i| (i, vec![0u8; 1000].into_boxed_slice())).collect();
    println!("{} {:?} {} {}", words.len(), sums, weigh(&grow(7)), boxes.len());
    std::mem::forget(boxes);
}
