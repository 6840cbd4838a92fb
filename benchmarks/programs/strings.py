"""String churn: a text is split, changed and joined over and over."""
import sys

TEXT = ' '.join('word%d' % (n * 7919 % 1000) for n in range(20000))
total = 0
for n in range(int(190 * float(sys.argv[1]))):
    words = [w.upper() + str(n) for w in TEXT.split()]
    total += len('-'.join(words).replace('1', 'one'))
print(total)
