//! What verifying runs of the decode layer.

use super::super::Launch;
use super::super::reference::Kv;

/// One variant over one set of inputs.
pub(super) struct Case {
    /// hidden, intermediate, query heads, kv heads, head dim, page size.
    pub(super) shape: [usize; 6],
    pub(super) set: Vec<(&'static str, &'static str)>,
    pub(super) lengths: Vec<usize>,
    pub(super) kv: Kv,
    pub(super) global_scale: f32,
}

pub(super) const MODEL: [usize; 6] = [5120, 17408, 24, 4, 256, 64];

/// Cases in order, gathered.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        shape: [usize; 6],
        set: &[(&'static str, &'static str)],
        lengths: &[usize],
        kv: Kv,
        gs: f32,
    ) {
        self.0.push(Case {
            shape,
            set: set.to_vec(),
            lengths: lengths.to_vec(),
            kv,
            global_scale: gs,
        });
    }
}

pub(super) fn cases(launch: Launch, quick: bool) -> Vec<Case> {
    let mut all = Cases::default();
    small_cases(&mut all);
    packed_cases(&mut all);
    head_cases(&mut all);
    if launch == Launch::Cooperative {
        original_cases(&mut all, quick);
    }
    if !quick {
        model_cases(&mut all);
    }
    all.0
}

pub(super) const SMALL: [usize; 6] = [256, 320, 4, 2, 64, 16];

/// Every head size, page size, grouping, layout and option.
fn small_cases(all: &mut Cases) {
    for (split, mode) in [("1", "fma"), ("2", "mul_add"), ("4", "fma"), ("8", "mul_add")] {
        let set = [("wo_split", split), ("accumulate", mode), ("num_ctas", "6")];
        all.add(SMALL, &set, &[17], Kv::ConstantV, 1.0);
        all.add(SMALL, &set, &[0, 15, 83], Kv::EqualScores, 0.0123);
        all.add(SMALL, &set, &[700, 1, 33, 257], Kv::Random, -3.7e-4);
    }
    let many: Vec<usize> = (0..9).map(|i| 40 * i + 1).collect();
    all.add(SMALL, &[("num_ctas", "6")], &many, Kv::Random, 0.0123);
    let gated = [
        ("accumulate", "mul_add"),
        ("tokens_per_pass", "4"),
        ("scale_layout", "linear"),
        ("output_gate", "true"),
        ("input_norm", "true"),
        ("num_ctas", "5"),
        ("num_threads", "128"),
        ("stages", "6"),
    ];
    all.add(
        [512, 1088, 6, 1, 128, 32],
        &gated,
        &[0, 31, 163],
        Kv::Random,
        0.0123,
    );
    let tensor = [
        ("accumulate", "mma"),
        ("wo_split", "4"),
        ("tokens_per_pass", "8"),
        ("num_ctas", "7"),
        ("num_threads", "256"),
        ("stages", "3"),
    ];
    for lengths in [&[65][..], &[64, 63, 0, 300], &many] {
        all.add([384, 704, 8, 1, 256, 64], &tensor, lengths, Kv::Random, 0.0123);
    }
    let two = [
        ("accumulate", "mma"),
        ("wo_split", "8"),
        ("tokens_per_pass", "2"),
        ("num_ctas", "9"),
        ("stages", "3"),
    ];
    all.add([640, 512, 24, 4, 256, 128], &two, &[129, 1, 128], Kv::Random, 1.0);
    let five = [("tokens_per_pass", "2"), ("num_ctas", "11"), ("stages", "2")];
    all.add([512, 640, 40, 8, 128, 64], &five, &[63, 200], Kv::Random, 0.0123);
    let wide = [("accumulate", "mma"), ("num_ctas", "3"), ("stage_chunks", "4")];
    all.add(
        [256, 192, 16, 1, 64, 16],
        &wide,
        &[15, 16, 17],
        Kv::Random,
        0.0123,
    );
    all.add(
        [256, 192, 32, 8, 128, 32],
        &[("num_ctas", "4")],
        &[33],
        Kv::Random,
        0.0123,
    );
}

const PACKED: (&str, &str) = ("weight_layout", "packed64");

/// Packed weights: with chains, on tensor cores, parts that are not all as long, a block whose rows end early.
fn packed_cases(all: &mut Cases) {
    let chains = [PACKED, ("wo_split", "4"), ("num_ctas", "6")];
    all.add(SMALL, &chains, &[17], Kv::Random, 0.0123);
    let linear = [
        PACKED,
        ("scale_layout", "linear"),
        ("num_ctas", "3"),
        ("num_threads", "128"),
        ("stages", "5"),
    ];
    all.add(SMALL, &linear, &[33, 1], Kv::Random, 0.0123);
    let early = [("dependent", "true"), ("num_ctas", "6")];
    all.add(SMALL, &early, &[40, 17], Kv::Random, 0.0123);
    let early = [PACKED, early[0], early[1], ("wo_split", "2")];
    all.add(SMALL, &early, &[40, 17], Kv::Random, 0.0123);
    let tensor = [
        PACKED,
        ("accumulate", "mma"),
        ("num_ctas", "11"),
        ("stage_chunks", "6"),
        ("stages", "2"),
    ];
    for (tokens, lengths) in [
        ("1", &[65][..]),
        ("2", &[129, 1, 128]),
        ("4", &[64, 63, 0, 300]),
        ("8", &[9, 40, 41]),
    ] {
        let set: Vec<_> = tensor.into_iter().chain([("tokens_per_pass", tokens)]).collect();
        all.add([640, 1088, 24, 4, 64, 16], &set, lengths, Kv::Random, 0.0123);
    }
    // More than eight tokens a pass, as many as there are and others.
    for (tokens, split, blocks, chunks) in [
        (16, "1", "16", "2"),
        (12, "4", "11", "3"),
        (17, "8", "16", "2"),
        (9, "1", "9", "2"),
        (31, "2", "16", "3"),
    ] {
        let set = [
            PACKED,
            ("accumulate", "mma"),
            ("tokens_per_pass", "16"),
            ("wo_split", split),
            ("num_ctas", blocks),
            ("stage_chunks", chunks),
            ("stages", "2"),
        ];
        let lengths: Vec<usize> = (0..tokens).map(|i| 37 * i % 130).collect();
        all.add([640, 1088, 32, 4, 64, 16], &set, &lengths, Kv::Random, 0.0123);
    }
}

/// Heads of two sizes in every grouping.
fn head_cases(all: &mut Cases) {
    for (heads, kv_heads) in [(8, 1), (32, 8), (40, 8)] {
        for (head_dim, lengths) in [(64, &[31, 32][..]), (128, &[33])] {
            let shape = [128, 128, heads, kv_heads, head_dim, 32];
            all.add(shape, &[("num_ctas", "5")], lengths, Kv::Random, 0.0123);
        }
    }
}

/// nvllm's grids: chains only, and one block a head attends.
fn original_cases(all: &mut Cases, quick: bool) {
    let original = [("geometry", "original"), ("tile_k", "128"), ("tile_s", "64")];
    for (split, lengths) in [("1", &[17][..]), ("2", &[0, 15, 83]), ("8", &[700, 1, 33])] {
        let set: Vec<_> = original.into_iter().chain([("wo_split", split)]).collect();
        all.add(SMALL, &set, lengths, Kv::Random, 0.0123);
    }
    let odd = [
        ("geometry", "original"),
        ("tile_k", "64"),
        ("slice_ctas", "3"),
        ("wo_split", "2"),
        ("accumulate", "mul_add"),
        ("scale_layout", "linear"),
        ("output_gate", "true"),
        ("input_norm", "true"),
    ];
    all.add(
        [512, 1088, 6, 1, 128, 32],
        &odd,
        &[31, 163],
        Kv::EqualScores,
        0.0123,
    );
    if quick {
        return;
    }
    for (tile_s, tile_k, slice_ctas) in [("64", "640", "8"), ("128", "640", "16"), ("256", "1280", "8")] {
        let set = [
            ("geometry", "original"),
            ("tile_s", tile_s),
            ("tile_k", tile_k),
            ("slice_ctas", slice_ctas),
            ("wo_split", "8"),
        ];
        all.add(MODEL, &set, &[1000], Kv::Random, 0.0123);
    }
}

/// The model's shape, and tensor-parallel shards of it.
fn model_cases(all: &mut Cases) {
    for split in ["1", "2", "4", "8"] {
        for mode in ["fma", "mul_add", "mma"] {
            let set = [("wo_split", split), ("accumulate", mode)];
            all.add(MODEL, &set, &[4096], Kv::Random, 0.0123);
        }
        all.add(MODEL, &[("wo_split", split)], &[65], Kv::ConstantV, 1.0);
    }
    let eight = [("wo_split", "8")];
    for lengths in [&[0][..], &[1, 63], &[64, 65, 1000], &[32_768], &[4096, 5, 0, 129]] {
        all.add(MODEL, &eight, lengths, Kv::Random, 0.0123);
    }
    let batch = [
        ("wo_split", "8"),
        ("accumulate", "mma"),
        ("tokens_per_pass", "4"),
        ("stages", "3"),
    ];
    all.add(MODEL, &batch, &[4096, 100, 8000, 64], Kv::Random, 0.0123);
    all.add(MODEL, &batch, &[1, 2, 3, 4, 5, 6, 7, 8], Kv::Random, 0.0123);
    all.add(MODEL, &eight, &[127, 64], Kv::EqualScores, 0.0123);
    let gated = [
        ("wo_split", "4"),
        ("accumulate", "mma"),
        ("tokens_per_pass", "2"),
        ("output_gate", "true"),
        ("input_norm", "true"),
    ];
    all.add(MODEL, &gated, &[300, 2000], Kv::Random, 0.0123);
    for (split, mode) in [("1", "mma"), ("8", "mma"), ("8", "fma")] {
        let set = [PACKED, ("wo_split", split), ("accumulate", mode)];
        all.add(MODEL, &set, &[4096], Kv::Random, 0.0123);
    }
    let other = [
        PACKED,
        ("accumulate", "mma"),
        ("stage_chunks", "6"),
        ("stages", "3"),
    ];
    all.add(MODEL, &other, &[4096], Kv::Random, 0.0123);
    let four = [
        PACKED,
        ("accumulate", "mma"),
        ("wo_split", "8"),
        ("tokens_per_pass", "4"),
    ];
    all.add(MODEL, &four, &[4096, 100, 8000, 64], Kv::Random, 0.0123);
    let eight_tokens = [
        PACKED,
        ("accumulate", "mma"),
        ("wo_split", "4"),
        ("tokens_per_pass", "8"),
        ("stages", "2"),
    ];
    all.add(
        MODEL,
        &eight_tokens,
        &[4096, 1, 65, 64, 0, 129, 700, 2000],
        Kv::Random,
        0.0123,
    );
    let sixteen_tokens = [
        PACKED,
        ("accumulate", "mma"),
        ("tokens_per_pass", "16"),
        ("stage_chunks", "2"),
        ("stages", "3"),
    ];
    let lengths: Vec<usize> = (0..16).map(|i| i * i * 9).chain([4096]).collect();
    all.add(MODEL, &sixteen_tokens, &lengths[1..], Kv::Random, 0.0123);
    all.add(MODEL, &sixteen_tokens, &lengths, Kv::Random, 0.0123);
    // Tensor-parallel shards of the model.
    let shard = [("wo_split", "8"), ("accumulate", "mma")];
    for set in [&eight[..], &shard] {
        all.add([5120, 8704, 12, 2, 256, 64], set, &[777], Kv::Random, 0.0123);
        all.add([5120, 4352, 6, 1, 256, 64], set, &[777], Kv::Random, 0.0123);
    }
    // Other models: 32 / 8 and 40 / 8 heads of 128.
    all.add(
        [4096, 14336, 32, 8, 128, 16],
        &shard[1..],
        &[500, 16, 17],
        Kv::Random,
        0.0123,
    );
    // At splits 4 and 8 their slots are 160 and 80 weights.
    let splits = [
        ("2", "1", &[900][..]),
        ("4", "1", &[900]),
        ("8", "1", &[900]),
        ("8", "2", &[900, 17, 300]),
    ];
    for (split, tokens, lengths) in splits {
        let set = [("wo_split", split), ("tokens_per_pass", tokens)];
        all.add([5120, 17408, 40, 8, 128, 32], &set, lengths, Kv::Random, 0.0123);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_hold_every_boundary_and_every_grouping_of_heads() {
        let all = cases(Launch::Cooperative, false);
        for tokens in [1, 2, 3, 4, 8] {
            assert!(all.iter().any(|c| c.lengths.len() == tokens), "{tokens} tokens");
        }
        let at = |page: usize| [0, 1, page - 1, page, page + 1, 32_768];
        for length in at(64) {
            let has = |c: &Case| c.shape == MODEL && c.lengths.contains(&length);
            assert!(all.iter().any(has), "length {length}");
        }
        for heads in [[8, 1], [32, 8], [40, 8]] {
            for head_dim in [64, 128] {
                let has = |c: &Case| c.shape[2..5] == [heads[0], heads[1], head_dim];
                assert!(all.iter().any(has), "{heads:?} of {head_dim}");
            }
        }
        for shard in [[5120, 8704, 12, 2, 256, 64], [5120, 4352, 6, 1, 256, 64]] {
            assert!(all.iter().any(|c| c.shape == shard));
        }
        for page in [16, 32, 64, 128] {
            assert!(all.iter().any(|c| c.shape[5] == page), "pages of {page}");
        }
        for kv in [Kv::ConstantV, Kv::EqualScores] {
            assert!(all.iter().any(|c| c.shape == MODEL && c.kv == kv));
        }
    }

    #[test]
    fn every_case_is_a_legal_kernel_of_its_family() {
        let registry = crate::engine::request::template::Registry::load(None).expect("registry");
        let family = registry.get(super::super::FAMILY).expect("family");
        for launch in Launch::ALL {
            for case in cases(launch, false) {
                let numbers = case.shape.map(|n| n.to_string());
                let names = super::super::SHAPE_NAMES.into_iter();
                let shape = names.zip(numbers.iter().map(String::as_str));
                let set = shape
                    .chain(case.set.iter().copied())
                    .chain([("launch", launch.name())]);
                let arch = "sm_90a".parse().expect("arch");
                if let Err(error) = crate::engine::request::spec::KernelSpec::new(family, set, arch) {
                    panic!("{:?}: {error}", case.shape);
                }
            }
        }
    }
}
