use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};

/// Append-only counter store: one `key value` line for each addition.
pub struct Store {
    file: File,
    totals: HashMap<String, i32>,
}

impl Store {
    pub fn open(path: &str) -> std::io::Result<Store> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut totals = HashMap::new();
        for line in BufReader::new(&file).lines() {
            let line = line?;
            let (key, value) = line.split_once(' ').unwrap();
            *totals.entry(key.to_string()).or_insert(0) += value.parse::<i32>().unwrap();
        }
        Ok(Store { file, totals })
    }

    pub fn add(&mut self, key: &str, value: i32) {
        let _ = writeln!(self.file, "{key} {value}");
        *self.totals.entry(key.to_string()).or_insert(0) += value;
    }

    pub fn total(&self, key: &str) -> i32 {
        self.totals[key]
    }
}
