"""embed.py IN OUT NAME: a text file as a C string."""
import sys

source, target, name = sys.argv[1:]
with open(source, encoding="utf-8") as file, open(target, "w", encoding="utf-8") as out:
    out.write("static const char %s[] =\n" % name)
    for line in file:
        text = "".join(c if c == " " or c.isalnum() and c.isascii() else "".join("\\%03o" % b for b in c.encode()) for c in line)
        out.write('    "%s"\n' % text)
    out.write("    ;\n")
