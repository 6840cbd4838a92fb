"""Threads with names, alive over several garbage collections. Prints their names."""
import threading


def work(ready, go):
    kept = [[i] for i in range(3000)]
    ready.wait()
    kept += [[i] for i in range(3000)]
    go.wait()


def main():
    ready, go = threading.Barrier(4), threading.Barrier(4)
    threads = [threading.Thread(target=work, args=(ready, go), name=name) for name in ("web-0", "größe", "x" * 40)]
    for thread in threads:
        thread.start()
    ready.wait()
    kept = [[i] for i in range(20000)]
    go.wait()
    for thread in threads:
        thread.join()
    print(len(kept))


main()
