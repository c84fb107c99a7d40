//! `[images.*]`.

use super::fields::{Context, Fields};
use super::{Places, content, header};
use crate::keys;
use crate::manifest::{Healthcheck, Image, ImageFile, ImageFileContent, ImageKind, LayerCompression, Port};
use crate::node::{Entry, Node, Value};
use crate::words;

pub(super) fn image(cx: &mut Context, entry: &Entry, places: &mut Places) -> Option<Image> {
    cx.good_key(entry, words::name(&entry.key, "an image"))?;
    places.images.insert(entry.key.to_string(), header(entry));
    let what = format!("images.{}", entry.key);
    let mut fields = Fields::open(cx, &keys::IMAGE, &what, &entry.node, header(entry))?;
    let content = content::content(cx, &mut fields);
    let of = fields.text(cx, "of").map(|(text, node)| {
        places.of.push((entry.key.to_string(), text.to_owned(), node.inner_span(cx.text)));
        text.to_owned()
    });
    Some(Image {
        content,
        of,
        kind: fields.choice(cx, "kind", &ImageKind::NAMES).unwrap_or_default(),
        name: fields.checked(cx, "name", words::image_name),
        run: fields.command(cx, "run"),
        entrypoint: fields.command(cx, "entrypoint"),
        labels: fields.map(cx, "labels").into_iter().map(|(key, (value, _))| (key, value)).collect(),
        annotations: fields.map(cx, "annotations").into_iter().map(|(key, (value, _))| (key, value)).collect(),
        ports: fields.get("ports").map(|node| ports(cx, node)),
        volumes: fields.get("volumes").map(|node| {
            let texts = cx.texts("volumes", node);
            texts.into_iter().filter_map(|(text, node)| cx.good(node, words::absolute(text))).collect()
        }),
        stop_signal: fields.parsed(cx, "stop-signal", words::signal),
        healthcheck: fields.get("healthcheck").and_then(|node| healthcheck(cx, node)),
        files: match fields.get("files") {
            None => Vec::new(),
            Some(node) => {
                let list = cx.list("files", node).unwrap_or_default();
                list.iter().filter_map(|node| file(cx, node)).collect()
            }
        },
        compression: fields.choice(cx, "compression", &LayerCompression::NAMES).unwrap_or_default(),
        nix_db: fields.flag(cx, "nix-db").unwrap_or(false),
        account: fields.checked(cx, "account", words::login),
    })
}

fn ports(cx: &mut Context, node: &Node) -> Vec<Port> {
    let list = cx.list("ports", node).unwrap_or_default();
    let one = |cx: &mut Context, node: &Node| {
        let port = match &node.value {
            Value::Integer(number) => cx.good(node, words::port(&number.to_string())),
            _ => {
                let text = cx.text("ports", node)?.to_owned();
                cx.good(node, words::port(&text))
            }
        }?;
        if port.host.is_some_and(|host| host != port.container) {
            let help = Some(format!("write `{}`; who runs the image decides where it is published", port.container));
            cx.error(
                node.inner_span(cx.text),
                "an image says what it listens on, not where that is published",
                "",
                help,
            );
        }
        Some(port)
    };
    list.iter().filter_map(|node| one(cx, node)).collect()
}

fn healthcheck(cx: &mut Context, node: &Node) -> Option<Healthcheck> {
    let mut fields = Fields::open(cx, &keys::HEALTHCHECK, "healthcheck", node, node.span.clone())?;
    let exec = fields.command(cx, "exec");
    let interval = fields.parsed(cx, "interval", words::duration);
    let timeout = fields.parsed(cx, "timeout", words::duration);
    let start_period = fields.parsed(cx, "start-period", words::duration);
    let retries = fields.integer(cx, "retries").and_then(|n| u32::try_from(n).ok());
    Some(Healthcheck { exec: exec?, interval, timeout, start_period, retries })
}

fn file(cx: &mut Context, node: &Node) -> Option<ImageFile> {
    let mut fields = Fields::open(cx, &keys::IMAGE_FILE, "files", node, node.span.clone())?;
    let path = fields.parsed(cx, "path", words::absolute);
    let text = fields.text(cx, "text").map(|(text, _)| ImageFileContent::Text(text.to_owned()));
    let from = fields.parsed(cx, "from", words::inner_path).map(ImageFileContent::From);
    let link = fields.text(cx, "link").map(|(text, _)| ImageFileContent::Link(text.to_owned()));
    let directory = fields.flag(cx, "directory").filter(|flag| *flag).map(|_| ImageFileContent::Directory);
    let mode = fields.parsed(cx, "mode", words::full_mode);
    let owner = fields.checked(cx, "owner", words::user);
    let mut kinds = [text, from, link, directory].into_iter().flatten();
    let (content, more) = (kinds.next(), kinds.next());
    if content.is_none() || more.is_some() {
        let help = Some(
            "write one of `text = \"...\"`, `from = \"FILE\"`, `link = \"TARGET\"` and `directory = true`".to_owned(),
        );
        cx.error(node.span.clone(), "a file of an image is exactly one thing", "", help);
    }
    Some(ImageFile { path: path?, content: content?, mode, owner })
}
