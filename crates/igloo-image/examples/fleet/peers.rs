//! How others cut an image into layers, written from the descriptions of their algorithms.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use igloo_image::plan::{FleetImage, PlannedLayer};

use crate::data::Depends;

/// A cut of one image, bottom first.
pub fn one_layer(image: &FleetImage, _: &Depends) -> Vec<PlannedLayer> {
    layers(vec![(0..image.packages.len()).collect()])
}

/// Popularity: a package scores by how many ways lead to it and how much hangs below it; the most popular ones get a layer
/// each, all others share the last one.
pub fn popularity(image: &FleetImage, depends: &Depends) -> Vec<PlannedLayer> {
    let graph = Graph::new(image, depends);
    let count = image.packages.len();
    let mut below = vec![1.0; count];
    for at in graph.order.iter().rev() {
        below[*at] = 1.0 + graph.children[*at].iter().map(|child| below[*child]).sum::<f64>();
    }
    let mut ways = vec![0.0; count];
    for at in &graph.order {
        if graph.parents[*at].is_empty() {
            ways[*at] = 1.0;
        }
        for child in &graph.children[*at] {
            ways[*child] += ways[*at];
        }
    }
    let mut sorted: Vec<usize> = (0..count).collect();
    sorted.sort_by(|a, b| {
        let (first, second) = (ways[*a] * below[*a], ways[*b] * below[*b]);
        second.total_cmp(&first).then_with(|| image.packages[*a].name.cmp(&image.packages[*b].name))
    });
    let single = sorted.len().min(99);
    let mut found: Vec<Vec<usize>> = sorted[..single].iter().map(|at| vec![*at]).collect();
    found.push(sorted[single..].to_vec());
    layers(found)
}

/// Size first: the largest package that isn't one yet becomes a primary; what hangs below the same primaries is one
/// layer. Goes on until there were more than a hundred layers; those with the smallest closure lie lowest.
pub fn size_first(image: &FleetImage, depends: &Depends) -> Vec<PlannedLayer> {
    let graph = Graph::new(image, depends);
    let mut by_size: Vec<usize> = (0..image.packages.len()).collect();
    by_size.sort_by_key(|at| (std::cmp::Reverse(image.packages[*at].installed), &image.packages[*at].name));
    let mut best = vec![(0..image.packages.len()).collect()];
    for primaries in 1..=by_size.len() {
        let primary: BTreeSet<usize> = by_size[..primaries].iter().copied().collect();
        let mut keys: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); image.packages.len()];
        for at in &graph.order {
            if primary.contains(at) {
                keys[*at] = BTreeSet::from([*at]);
                continue;
            }
            keys[*at] = graph.parents[*at].iter().flat_map(|parent| keys[*parent].iter().copied()).collect();
        }
        let mut cut: BTreeMap<&BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
        for (at, key) in keys.iter().enumerate() {
            cut.entry(key).or_default().push(at);
        }
        if cut.len() > 100 {
            break;
        }
        best = cut.into_values().collect();
    }
    let closure = |layer: &Vec<usize>| -> u64 {
        let mut seen: BTreeSet<usize> = layer.iter().copied().collect();
        let mut todo: Vec<usize> = layer.clone();
        while let Some(at) = todo.pop() {
            todo.extend(graph.children[at].iter().filter(|child| seen.insert(**child)));
        }
        seen.iter().map(|at| image.packages[*at].installed).sum()
    };
    best.sort_by_cached_key(closure);
    layers(best)
}

/// Origin: packages of one source are a layer; the largest forty but one stand alone, the others are put together.
pub fn origin(image: &FleetImage, _: &Depends) -> Vec<PlannedLayer> {
    let mut sources: BTreeMap<&str, (u64, Vec<usize>)> = BTreeMap::new();
    for (at, package) in image.packages.iter().enumerate() {
        let (size, packages) = sources.entry(&package.source).or_default();
        *size += package.installed;
        packages.push(at);
    }
    let mut sorted: Vec<_> = sources.into_iter().collect();
    sorted.sort_by_key(|(name, (size, _))| (std::cmp::Reverse(*size), *name));
    let mut found: Vec<Vec<usize>> = sorted.into_iter().map(|(_, (_, packages))| packages).collect();
    if found.len() > 40 {
        let others = found.split_off(39).concat();
        found.push(others);
    }
    layers(found)
}

fn layers(found: Vec<Vec<usize>>) -> Vec<PlannedLayer> {
    let named = |(at, mut packages): (usize, Vec<usize>)| {
        packages.sort_unstable();
        PlannedLayer { name: at.to_string(), packages }
    };
    found.into_iter().filter(|packages| !packages.is_empty()).enumerate().map(named).collect()
}

/// What depends on what in one image, cycles cut open.
struct Graph {
    children: Vec<Vec<usize>>,
    parents: Vec<Vec<usize>>,
    /// Parents before children.
    order: Vec<usize>,
}

impl Graph {
    fn new(image: &FleetImage, depends: &Depends) -> Graph {
        let at: HashMap<&str, usize> = image.packages.iter().enumerate().map(|(at, p)| (&*p.name, at)).collect();
        let needs: Vec<Vec<usize>> = image
            .packages
            .iter()
            .map(|p| depends.get(&p.name).into_iter().flatten().filter_map(|name| at.get(&**name).copied()).collect())
            .collect();
        let count = needs.len();
        let mut needed = vec![false; count];
        needs.iter().flatten().for_each(|at| needed[*at] = true);
        let mut graph =
            Graph { children: vec![Vec::new(); count], parents: vec![Vec::new(); count], order: Vec::new() };
        let mut state = vec![0u8; count];
        // What nothing needs comes first; then what only cycles need.
        let roots = (0..count).filter(|at| !needed[*at]).chain((0..count).filter(|at| needed[*at]));
        for root in roots {
            graph.visit(root, &needs, &mut state);
        }
        graph.order.reverse();
        graph
    }

    /// Depth first; an edge back to what is still being visited closes a cycle and is left out.
    fn visit(&mut self, at: usize, needs: &[Vec<usize>], state: &mut [u8]) {
        if state[at] != 0 {
            return;
        }
        state[at] = 1;
        for child in &needs[at] {
            if state[*child] != 1 {
                self.children[at].push(*child);
                self.parents[*child].push(at);
                self.visit(*child, needs, state);
            }
        }
        state[at] = 2;
        self.order.push(at);
    }
}
