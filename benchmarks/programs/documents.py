"""JSON documents: encoded, decoded, changed."""
import json
import sys

DOCUMENT = {'rows': [{'id': i, 'name': 'name %d' % i, 'tags': ['a', 'b', str(i)], 'value': i * 1.25} for i in range(2000)]}
text = json.dumps(DOCUMENT)
total = 0
for n in range(int(80 * float(sys.argv[1]))):
    document = json.loads(text)
    document['rows'][n % 2000]['value'] += n
    total += len(json.dumps(document))
print(total)
