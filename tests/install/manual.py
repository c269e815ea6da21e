"""manual.py: the commands of a manual page of docs/, as who reads it would type them.

What is indented by four spaces is typed, or written into a file; a blank line ends such a block.  Behind four spaces or more in a line follows what it is for.
A block is asked for by its section and how it begins, so a test fails when a page says something else than what the test was made for, and types whatever the page says."""
import re


class Manual:
    def __init__(self, path):
        self.path, self.text, self.blocks, self.seen = path, {}, [], set()
        section, block = "", None
        with open(path) as f:
            for line in f.read().splitlines():
                heading = re.match(r"#+ +(.*)", line)
                if heading:
                    section = heading.group(1)
                self.text[section] = self.text.get(section, "") + line + "\n"
                if line.startswith("    "):
                    if block is None:
                        block = []
                        self.blocks.append((section, block))
                    block.append(line[4:])
                else:
                    block = None

    def section(self, title):
        """The heading that begins so."""
        found = [s for s in self.text if s.startswith(title)]
        if len(found) != 1:
            raise AssertionError("%s has %d sections that begin with '%s'" % (self.path, len(found), title))
        return found[0]

    def block(self, title, begins):
        """The lines of the only block there that begins so."""
        section = self.section(title)
        found = [i for i, (s, b) in enumerate(self.blocks) if s == section and b[0].startswith(begins)]
        if len(found) != 1:
            raise AssertionError("%s, '%s', has %d blocks that begin with '%s'" % (self.path, title, len(found), begins))
        self.seen.add(found[0])
        return self.blocks[found[0]][1]

    def commands(self, title, begins, **said):
        """The same without what stands behind them; `said` replaces words of the page by those of this site."""
        lines = [re.split(r" {4,}", line)[0] for line in self.block(title, begins) if not line.startswith(" ")]
        return [self.fill(line, said) for line in lines if line]

    def file(self, title, begins, **said):
        return "".join(self.fill(line, said) + "\n" for line in self.block(title, begins))

    def words(self, title, begins, **said):
        """A command that stands in the middle of a sentence, between back quotes."""
        found = {w for w in re.findall(r"`([^`]+)`", re.sub(r"\n(?=\S)", " ", self.text[self.section(title)])) if w.startswith(begins)}
        if len(found) != 1:
            raise AssertionError("%s, '%s', has %d commands that begin with '%s'" % (self.path, title, len(found), begins))
        return self.fill(found.pop(), said)

    @staticmethod
    def fill(line, said):
        for word, value in said.items():
            line = re.sub(r"(?<![\w.-])%s(?![\w-])" % re.escape(word), lambda _: value, line)
        return line

    def unread(self, *titles):
        """First lines of blocks in these sections for which nobody asked."""
        sections = [self.section(t) for t in titles]
        return ["%s: %s" % (s, b[0]) for i, (s, b) in enumerate(self.blocks) if s in sections and i not in self.seen]
