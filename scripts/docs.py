"""Writes the pages of the documentation: README, CONTRIBUTING, guides, studies, and one page per module of `dsnn`.

python scripts/docs.py        # pages in outputs/docs/pages; scripts/docs.sh also builds the site
"""

import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "outputs" / "docs" / "pages"
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md")
GUIDES = ("experiments/cookbook.md", "experiments/migration.md")


def modules() -> list[tuple[str, Path]]:
    """Returns the public modules of the package by dotted name."""
    found = []
    for file in sorted((ROOT / "dsnn").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in name.split(".")):
            found.append((name, file))
    return found


def undocumented(source: str) -> Iterator[str]:
    """Yields the public names of a module that have no docstring."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "the module itself"
    yield from _undocumented(tree, "")


def _undocumented(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{prefix}{child.name}.")


def write() -> None:
    """Writes every page anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    (PAGES / "reference").mkdir(parents=True)
    shutil.copy(ROOT / "README.md", PAGES / "index.md")
    for name in TEXTS:
        shutil.copy(ROOT / name, PAGES / name)
    shutil.copytree(ROOT / "experiments" / "studies", PAGES / "experiments" / "studies")
    for name in GUIDES:
        shutil.copy(ROOT / name, PAGES / name)
    contents = ["# Reference\n"]
    for name, file in modules():
        summary = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        (PAGES / "reference" / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n")
        contents.append(f"- [{name}]({name}.md): {summary}")
    (PAGES / "reference" / "index.md").write_text("\n".join(contents) + "\n")


def main() -> int:
    """Returns 1 after naming every public name that has no docstring."""
    missing = [f"{name}: {what}" for name, file in modules() for what in undocumented(file.read_text())]
    for line in missing:
        print(f"{line} has no docstring", file=sys.stderr)
    if missing:
        return 1
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
