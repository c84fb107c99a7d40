//! Worlds drawn at random, small enough that every set of packages can be looked at.

use super::*;
use proptest::prelude::*;

/// Every set of packages, one version each at most, that holds `p0` and holds together.
fn some_answer(universe: &Indexes<'_, Vec<u8>>, count: usize) -> bool {
    let versions: Vec<Vec<Arc<Candidate>>> = (0..count).map(|i| universe.candidates(&format!("p{i}"))).collect();
    let sizes: Vec<usize> = versions.iter().map(|v| v.len() + 1).collect();
    (0..sizes.iter().product::<usize>()).any(|mut number| {
        let mut set = Vec::new();
        for (all, size) in versions.iter().zip(&sizes) {
            set.extend(all.get(number % size));
            number /= size;
        }
        let members: Vec<_> = set.iter().map(|c| Member::from(&c.record)).collect();
        members.iter().any(|m| m.name == "p0") && verify(&members, System::X86_64Linux).is_empty()
    })
}

fn worlds() -> impl Strategy<Value = String> {
    let atom = (0..6usize, 0..4usize).prop_map(|(i, kind)| match kind {
        0 => format!("p{i} (>= 2)"),
        1 => format!("v{}", i % 2),
        _ => format!("p{i}"),
    });
    let clause = proptest::collection::vec(atom.clone(), 1..3).prop_map(|atoms| atoms.join(" | "));
    let package = (proptest::collection::vec(clause, 0..3), proptest::option::of(atom), 0..6usize);
    proptest::collection::vec(package, 8).prop_map(|packages| {
        let mut text = String::new();
        for (i, (depends, conflicts, provides)) in packages.iter().enumerate() {
            text.push_str(&format!("p{} {}", i % 6, 1 + i / 6));
            if !depends.is_empty() {
                text.push_str(&format!("; Depends: {}", depends.join(", ")));
            }
            if let Some(conflicts) = conflicts {
                text.push_str(&format!("; Conflicts: {conflicts}"));
            }
            if *provides < 2 {
                text.push_str(&format!("; Provides: v{provides}"));
            }
            text.push('\n');
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Answers hold together (`resolve` itself checks), there is one whenever one exists, and always the same.
    #[test]
    fn an_answer_is_found_if_there_is_one(text in worlds()) {
        let world = World::new(&text);
        let universe = world.universe();
        let result = resolve(&universe, &request("p0"), System::X86_64Linux);
        match &result {
            Ok(resolution) => {
                let why: &BTreeMap<String, String> = &resolution.why;
                prop_assert_eq!(why.len(), resolution.packages.len());
            }
            Err(conflict) => {
                prop_assert!(!conflict.reason.contains("fault"), "{}", conflict.details());
                prop_assert!(!some_answer(&universe, 6), "missed an answer in\n{}", text);
            }
        }
        let again = resolve(&universe, &request("p0"), System::X86_64Linux);
        prop_assert_eq!(render(result), render(again));
    }
}
