//! What the source says of itself: modules, what they import, and where `unsafe` stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// A path of names from the root of a package, such as `["memory", "remote"]`; empty for the root itself.
pub(crate) type Module = Vec<String>;

/// One file of a package.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) module: Module,
    /// Paths that start in this package, from its root: what `use` and expressions name.
    inner: BTreeSet<Vec<String>>,
    /// Paths that start with the name of a crate.
    pub(crate) outer: BTreeSet<Vec<String>>,
    /// What `use` calls by a name of its own here, and where that comes from.
    aliases: BTreeMap<String, Vec<String>>,
    pub(crate) has_unsafe: bool,
    /// Modules in files of their own that are compiled for tests only.
    for_tests: Vec<Module>,
}

/// The files of one package.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) files: Vec<SourceFile>,
}

impl Package {
    /// Reads all files below `src`, without code that is for tests only.
    pub(crate) fn read(src: &Path) -> Self {
        let read = |path: PathBuf| SourceFile::read(&path, module_of(path.strip_prefix(src).unwrap()));
        let mut files: Vec<SourceFile> = files(src, &["rs"]).into_iter().map(read).collect();
        let for_tests: Vec<Module> = files.iter().flat_map(|file| file.for_tests.clone()).collect();
        files.retain(|file| !for_tests.iter().any(|module| file.module.starts_with(module)));
        Self { files }
    }

    fn file(&self, module: &[String]) -> Option<usize> {
        self.files.iter().position(|file| file.module == module)
    }

    /// The file that defines what `path` names, from the root of the package: re-exports are followed.
    fn defining(&self, path: &[String], depth: usize) -> Option<usize> {
        let known = (0..=path.len()).rev().find_map(|len| Some((len, self.file(&path[..len])?)));
        let (len, file) = known?;
        let alias = path.get(len).and_then(|name| self.files[file].aliases.get(name));
        match alias {
            Some(target) if depth > 0 => self.defining(target, depth - 1).or(Some(file)),
            _ => Some(file),
        }
    }

    /// Which files each file uses, by number. A file may name the heads of the folders it is in: they are not counted.
    pub(crate) fn uses(&self) -> Vec<BTreeSet<usize>> {
        let of = |file: &SourceFile| {
            let targets = file.inner.iter().filter_map(|path| self.defining(path, 8));
            targets.filter(|&target| !file.module.starts_with(&self.files[target].module)).collect()
        };
        self.files.iter().map(of).collect()
    }
}

impl SourceFile {
    fn read(path: &Path, module: Module) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut file = Self {
            path: path.to_owned(),
            module: module.clone(),
            inner: BTreeSet::new(),
            outer: BTreeSet::new(),
            aliases: BTreeMap::new(),
            has_unsafe: false,
            for_tests: Vec::new(),
        };
        Reader { file: &mut file, module }.visit_file(&syntax);
        file
    }
}

/// Collects what one file names.
struct Reader<'a> {
    file: &'a mut SourceFile,
    /// Where the items stand that are being read: deeper than the file inside of `mod name { … }`.
    module: Module,
}

impl Reader<'_> {
    fn path(&mut self, names: &[String]) -> Option<Vec<String>> {
        let mut base = match names.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().checked_sub(1)?].to_vec(),
            _ => {
                self.file.outer.insert(names.to_vec());
                return None;
            }
        };
        let mut rest = &names[1..];
        while let Some((first, others)) = rest.split_first() {
            if first != "super" {
                break;
            }
            base.pop();
            rest = others;
        }
        base.extend_from_slice(rest);
        self.file.inner.insert(base.clone());
        Some(base)
    }

    fn use_tree(&mut self, tree: &UseTree, mut names: Vec<String>, is_local: bool) {
        match tree {
            UseTree::Path(path) => {
                names.push(path.ident.to_string());
                self.use_tree(&path.tree, names, is_local);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(tree, names.clone(), is_local));
            }
            UseTree::Name(name) if name.ident == "self" => {
                self.imported(&names, names.last().cloned(), is_local);
            }
            UseTree::Name(name) => {
                names.push(name.ident.to_string());
                self.imported(&names, names.last().cloned(), is_local);
            }
            UseTree::Rename(rename) => {
                names.push(rename.ident.to_string());
                self.imported(&names, Some(rename.rename.to_string()), is_local);
            }
            UseTree::Glob(_) => self.imported(&names, None, is_local),
        }
    }

    fn imported(&mut self, names: &[String], alias: Option<String>, is_local: bool) {
        // `use child::Name` in the head of a folder.
        let names = if is_local { [&["self".to_owned()], names].concat() } else { names.to_vec() };
        if let (Some(path), Some(alias)) = (self.path(&names), alias) {
            self.file.aliases.insert(alias, path);
        }
    }

    /// Paths in the tokens of a macro, which nobody has parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut names: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if names.is_empty() || colons == 2 => {
                    names.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !names.is_empty() && colons < 2 => {
                    colons += 1;
                }
                other => {
                    self.named(&std::mem::take(&mut names));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Ident(name) => names.push(name.to_string()),
                        _ => {}
                    }
                }
            }
        }
        self.named(&names);
    }

    fn named(&mut self, names: &[String]) {
        if names.len() > 1 {
            self.path(names);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_for_tests) {
            if let Item::Mod(item) = item {
                self.file.for_tests.push([&self.module[..], &[item.ident.to_string()]].concat());
            }
            return;
        }
        match item {
            Item::Use(item) => {
                let children = self.children();
                let first = match &item.tree {
                    UseTree::Path(path) => path.ident.to_string(),
                    _ => String::new(),
                };
                self.use_tree(&item.tree, Vec::new(), children.contains(&first));
            }
            Item::Mod(item) if item.content.is_some() => {
                self.module.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.named(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.file.has_unsafe = true;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.file.has_unsafe |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.file.has_unsafe |= signature.unsafety.is_some();
        visit::visit_signature(self, signature);
    }
}

impl Reader<'_> {
    /// Modules whose files lie beside this one's, if it is the head of a folder.
    fn children(&self) -> BTreeSet<String> {
        let path = &self.file.path;
        let is_head = path
            .file_name()
            .is_some_and(|name| ["mod.rs", "lib.rs", "main.rs"].map(AsRef::as_ref).contains(&name));
        let folder = if is_head { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect()
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
}

/// The module that a file is, by its place below `src`.
fn module_of(path: &Path) -> Module {
    let names = path.with_extension("");
    let mut module: Module = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// All files below a folder whose names end in one of these ways, in order, except what the compiler has made.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                found.extend(files(&path, extensions));
            }
        } else if path.extension().is_some_and(|name| extensions.iter().any(|wanted| name == *wanted)) {
            found.push(path);
        }
    }
    found
}
