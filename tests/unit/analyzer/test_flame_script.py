"""The flame graph's script, in a real browser: test_flame_script.py MAKE_TRACE MEMLYZE_FLAME. TAP; skipped where no Chromium is installed.

A second script is put into the picture, which presses keys and clicks, and leaves what it saw in an attribute; --dump-dom prints that."""
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.dom.minidom

PROBE = r'''
const seen = {}, frames = [...document.querySelectorAll("#frames > svg")];
const key = (k, more) => window.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true, ...more }));
const type = (text) => { for (const c of text) key(c); };
const click = (i) => frames[i].querySelector("rect").dispatchEvent(new MouseEvent("click", { bubbles: true }));
const name = (f) => f.querySelector("title").textContent.split(/\s/)[0];
const named = (n) => frames.findIndex((f) => name(f) === n);
const note = (what) => seen[what] = {
  shown: frames.filter((f) => f.style.display !== "none").map(name),
  hits: frames.filter((f) => f.classList.contains("hit")).map(name),
  above: frames.filter((f) => f.classList.contains("above")).map(name),
  focus: frames.filter((f) => f.classList.contains("focus")).map(name),
  matched: document.getElementById("matched").textContent,
  reset: !document.getElementById("reset").classList.contains("hidden"),
  box: !document.getElementById("box").classList.contains("hidden"),
  details: document.getElementById("details").textContent,
  hash: location.hash,
  down: window.scrollY, below: document.documentElement.getAttribute("height") - window.innerHeight,
  head: document.getElementById("title").getBoundingClientRect().top,
  root: frames[0].getBoundingClientRect().bottom, foot: document.getElementById("details").getBoundingClientRect().bottom - window.innerHeight,
  labels: frames.map((f) => f.querySelector("text").textContent),
};
note("hash");
location.hash = ""; window.dispatchEvent(new HashChangeEvent("hashchange")); note("start");
key("f", { ctrlKey: true }); type("remember|handle"); note("typing"); key("Enter"); note("nested");
key("Escape"); note("cleared");
key("/"); type("SERVER"); key("Enter"); note("case"); key("i"); note("ignore case"); key("i"); key("Escape");
key("/"); type("("); key("Enter"); note("no regex"); key("Escape");
key("/"); type("render"); key("Escape"); note("given up");
key("ArrowUp"); key("ArrowUp"); key("ArrowUp"); note("moved"); key("Enter"); note("zoomed by key"); key("ArrowDown"); key("ArrowDown"); note("moved down"); key("r"); note("reset");
click(named("render")); note("zoomed"); click(0); note("zoomed out");
document.documentElement.setAttribute("data-seen", JSON.stringify(seen));
'''


def browse(chromium, path, fragment, window='800,900'):
    with tempfile.TemporaryDirectory() as profile:
        out = subprocess.run([chromium, '--headless', '--no-sandbox', '--disable-gpu', '--user-data-dir=' + profile, '--window-size=' + window, '--dump-dom', 'file://' + path + fragment],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, check=True).stdout.decode()
    found = re.search(r'data-seen="([^"]*)"', out)
    assert found, 'the script did not run to its end'
    return json.loads(html.unescape(found.group(1)))


def main():
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium:
        print('1..0 # SKIP no Chromium here')
        return
    with tempfile.TemporaryDirectory() as directory:
        trace, picture = os.path.join(directory, 't.mlyze'), os.path.join(directory, 't.svg')
        subprocess.run([sys.argv[1], 'service', trace], check=True)
        text = subprocess.run([sys.argv[2], trace], stdout=subprocess.PIPE, check=True).stdout.decode()
        xml.dom.minidom.parseString(text)
        end = text.rindex('</svg>')
        with open(picture, 'w') as out:
            out.write(text[:end] + '<script><![CDATA[' + PROBE + ']]></script>' + text[end:])
        seen = browse(chromium, picture, '#zoom=3&search=json')
        low = browse(chromium, picture, '', '800,300')['start']
    everything = seen['start']['shown']
    checks = [
        ('the address brings zoom and search back', seen['hash']['reset'] and 'JSONDecoder.raw_decode' in seen['hash']['hits'] and seen['hash']['above'] == ['all', '<module>']),
        ('an empty address shows all', not seen['start']['reset'] and not seen['start']['hits'] and len(everything) > 15),
        ('a picture that fits is not scrolled', seen['start']['down'] == 0 and seen['start']['below'] <= 0),
        ('a taller one opens where callers begin', low['below'] > 0 and abs(low['down'] - low['below']) < 2 and 0 < low['root'] < 300),
        ('with title and details in sight', 0 <= low['head'] < 40 and -40 < low['foot'] <= 0),
        ('at rest it says how to use it', 'callers stand below' in seen['start']['details'] and 'Click: zoom' in seen['start']['details']),
        ('a label that has no room loses line and class before the name', 'raw_decode' in seen['start']['labels']),
        ('the search box opens and shows hits while typing', seen['typing']['box'] and 'remember' in seen['typing']['hits'] and not seen['typing']['hash']),
        ('a match below a match is not counted twice', seen['nested']['matched'].startswith('Matched: 64.6%') and {'remember', 'Server.handle'} <= set(seen['nested']['hits'])),
        ('the address keeps the search', seen['nested']['hash'] == '#search=remember%7Chandle'),
        ('Escape clears it', not seen['cleared']['hits'] and seen['cleared']['matched'] == '' and seen['cleared']['hash'] == ''),
        ('case counts', not seen['case']['hits']),
        ('case can be ignored', 'Server.handle' in seen['ignore case']['hits'] and 'ignorecase=1' in seen['ignore case']['hash']),
        ('what is no regular expression is taken as text', len(seen['no regex']['hits']) > 5),
        ('Escape gives up typing', not seen['given up']['box'] and not seen['given up']['hits']),
        ('arrows move', seen['moved']['focus'] == ['run'] and seen['moved']['details'].startswith('run ')),
        ('Enter zooms', seen['zoomed by key']['reset'] and seen['zoomed by key']['above'] == ['all', '<module>'] and '#zoom=' in seen['zoomed by key']['hash']),
        ('arrows go back to callers', seen['moved down']['focus'] == ['all']),
        ('r shows all again', seen['reset']['shown'] == everything and not seen['reset']['above']),
        ('a click zooms', set(seen['zoomed']['shown']) == {'all', '<module>', 'run', 'Server.handle', 'render', 'TemplateCache.get'}),
        ('a click on the root zooms out', seen['zoomed out']['shown'] == everything),
    ]
    print('1..%d' % len(checks))
    for i, (what, good) in enumerate(checks, 1):
        print('%s %d - %s' % ('ok' if good else 'not ok', i, what))
    if not all(good for _, good in checks):
        print('\n'.join('# %s: %s' % item for item in seen.items()))
        sys.exit(1)


main()
