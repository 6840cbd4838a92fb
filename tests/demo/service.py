"""The demo's program: a small order service that answers some ten thousand requests and writes a monthly report.

It has four faults, each of a kind that real services have:
  a leak      RequestLog remembers every request under its request id, which never comes again
  churn       format_prices parses and formats the whole price list anew in each request
  a peak      monthly_report holds all lines of the report at once, three times over
  GC pressure Order and its lines point at each other, so that only the garbage collector can free them
"""
import json
import random
import threading

PRODUCTS = ['bolt', 'nut', 'washer', 'screw', 'bracket', 'hinge', 'spring', 'bearing', 'gasket', 'valve']
REQUESTS = 60000


class RequestLog:
    """For support: what did request 4711 answer? Nobody ever asks, and nothing is ever removed."""

    def __init__(self):
        self.answers = {}

    def remember(self, request_id, answer):
        self.answers[request_id] = answer.encode('utf-8')


class Line:
    def __init__(self, order, product, amount, price):
        self.order = order  # the way back makes a cycle
        self.product = product
        self.amount = amount
        self.price = price

    def total(self):
        return self.amount * self.price


class Order:
    def __init__(self, customer, wishes, prices):
        self.customer = customer
        self.lines = [Line(self, product, amount, prices[product]) for product, amount in wishes]

    def total(self):
        return sum(line.total() for line in self.lines)


class Ledger:
    """Keeps one number a customer: this is what a service may keep."""

    def __init__(self):
        self.sums = {}
        self.lock = threading.Lock()

    def book(self, customer, total):
        with self.lock:
            self.sums[customer] = self.sums.get(customer, 0.0) + total


def load_prices():
    return json.dumps({product: 1.0 + len(product) / 4 for product in PRODUCTS})


def format_prices(price_text):
    prices = json.loads(price_text)
    rows = ['%-10s %8.2f EUR' % (product, price) for product, price in sorted(prices.items())]
    return prices, '\n'.join(rows)


def handle(request_id, dice, price_text, ledger, log):
    prices, table = format_prices(price_text)
    wishes = [(dice.choice(PRODUCTS), dice.randrange(1, 9)) for _ in range(dice.randrange(1, 6))]
    order = Order('customer-%04d' % dice.randrange(2000), wishes, prices)
    total = order.total()
    ledger.book(order.customer, total)
    answer = 'request %s\n%s\ntotal %.2f EUR' % (request_id, table, total)
    log.remember(request_id, answer)
    return answer


def monthly_report(ledger):
    lines = []
    for customer in sorted(ledger.sums):
        for day in range(1, 31):
            lines.append('%s;2024-06-%02d;%012.2f;EUR;paid;no remarks' % (customer, day, ledger.sums[customer] / 30))
    table = [line.split(';') for line in lines]
    text = '\n'.join(' | '.join(cell.ljust(14) for cell in row) for row in table)
    return len(text)


def worker(number, price_text, ledger, log):
    dice = random.Random(number)
    for n in range(REQUESTS // 3):
        handle('%d-%06d' % (number, n), dice, price_text, ledger, log)


def main():
    price_text = load_prices()
    ledger, log = Ledger(), RequestLog()
    threads = [threading.Thread(target=worker, args=(n, price_text, ledger, log), name='worker-%d' % n) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = monthly_report(ledger)
    worker(3, price_text, ledger, log)
    print('order service: %d requests answered, report of %d characters' % (REQUESTS, size))
    return log


if __name__ == '__main__':
    request_log = main()
