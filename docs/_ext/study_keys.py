"""The directive `study-keys`: a table of each of a study's tables, from the dataclasses."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bam_search.search.study_keys import Key, KeyTable, key_tables


class StudyKeys(SphinxDirective):
    """All keys of a study file."""

    def run(self) -> list[nodes.Node]:
        return [self._section(table) for table in key_tables()]

    def _section(self, table: KeyTable) -> nodes.section:
        name = f"[{table.name}]" if table.name else "At the top of the file"
        section = nodes.section(ids=[f"keys-{table.name or 'top'}"])
        section += nodes.title(text=name)
        section += self.parse_text_to_nodes(table.about)
        section += self._table(table.keys)
        return section

    def _table(self, keys: tuple[Key, ...]) -> nodes.Node:
        rows = ["| key | type | default |", "|---|---|---|"]
        rows += [f"| `{key.name}` | {_cell(key.type)} | `{key.default}` |" for key in keys]
        return nodes.container("", *self.parse_text_to_nodes("\n".join(rows)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("study-keys", StudyKeys)
    return {"parallel_read_safe": True}
