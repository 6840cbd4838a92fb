"""A request loop as web services have it: headers parsed, a template filled, objects with attributes made and dropped."""
import sys
import urllib.parse
from email.parser import BytesHeaderParser
from string import Template

RAW = b'Host: example.org\r\nAccept: text/html, */*;q=0.8\r\nCookie: session=abc; theme=dark\r\nUser-Agent: bench/1.0\r\n\r\n'
PAGE = Template('<html><h1>$title</h1>' + '<p>$body</p>' * 20 + '</html>')


class Request:
    def __init__(self, n):
        self.headers = BytesHeaderParser().parsebytes(RAW)
        self.query = urllib.parse.parse_qs('page=%d&sort=name&filter=a%%20b' % n)
        self.cookies = dict(c.strip().split('=') for c in self.headers['Cookie'].split(';'))


def handle(n):
    request = Request(n)
    return PAGE.substitute(title='page %s' % request.query['page'][0], body=request.cookies['theme']).encode()


total = sum(len(handle(n)) for n in range(int(15000 * float(sys.argv[1]))))
print(total)
