"""Generated traces whose contents are known: the tools agree with the generator, and the number of threads that read changes nothing, in sound
traces and in damaged ones."""
import json
import os
import random
import resource
import sys

from harness import BUILD, MEMLYZE, SLOW, TESTS, Skip, case, execute, run

sys.path.insert(0, os.path.join(os.path.dirname(TESTS), 'benchmarks'))
import traces  # noqa: E402

EVENTS = 3000000 // SLOW
GOLDEN = os.path.join(TESTS, 'golden')
ANSWERS = [('stats', '--json'), ('stats', '--json', '--at', '60%'), ('top', '--json'), ('top', '--json', '--group', 'thread'),
           ('top', '--json', '--from', '20%', '--to', '70%'), ('top', '--json', '--by', 'peak-bytes'), ('leaks', '--json', '-n', '0'),
           ('leaks', '--json', '--since', '30%'), ('gc', '--json'), ('gc', '--json', '--from', '50%'), ('flame',), ('diff', '--json'),
           ('export', '--to', 'collapsed'), ('export', '--to', 'massif')]


def make(path, *options, events=EVENTS):
    maker = os.path.join(BUILD, 'benchmarks', 'traces', 'make_large')
    result = execute([maker, '--events', events] + list(options) + [path])
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def same_for_any_jobs(trace, answers=ANSWERS, jobs=(2, 5)):
    for name, *options in answers:
        seen = {}
        for n in (1,) + jobs:
            command = [MEMLYZE, name] + options + ([trace + '@25%'] if name == 'diff' else []) + [trace, '--jobs', n]
            result = execute(command)
            seen[n] = (result.returncode, result.stdout, result.stderr)
            assert result.returncode in (0, 1, 2), (command, result.stderr)
        for n in jobs:
            assert seen[n] == seen[1], '%s %s %s: with %d threads otherwise than with one:\n%s\n%s' % (
                name, options, trace, n, seen[n][2], seen[1][2])


@case(each=[('one process', '--threads', '3'), ('three processes', '--processes', '3', '--threads', '2'), ('few stacks', '--stacks', '500', '--live', '2000')])
def the_tools_tell_what_the_generator_wrote(*options):
    truth = make('large.mlyze', *options)
    assert truth['events'] >= EVENTS
    wrong = traces.differences(BUILD, os.path.abspath('large.mlyze'), truth)
    assert not wrong, wrong


@case
def the_same_options_give_the_same_trace():
    first, second = make('first.mlyze', '--seed', '7', events=200000), make('second.mlyze', '--seed', '7', events=200000)
    other = make('other.mlyze', '--seed', '8', events=200000)
    del first['file'], second['file']
    assert first == second
    assert first['alloc_bytes'] != other['alloc_bytes']


@case
def nothing_depends_on_the_number_of_threads():
    make('one.mlyze', '--stacks', '3000', events=EVENTS // 2)
    same_for_any_jobs('one.mlyze')
    make('three.mlyze', '--processes', '3', '--stacks', '3000', events=EVENTS // 2)
    same_for_any_jobs('three.mlyze', ANSWERS[::2], jobs=(3,))
    for file in sorted(os.listdir(GOLDEN)):
        if file.endswith('.mlyze'):
            same_for_any_jobs(os.path.join(GOLDEN, file), ANSWERS[::5], jobs=(3,))


@case
def damage_is_told_alike():
    make('sound.mlyze', '--stacks', '3000', events=EVENTS // 2)
    with open('sound.mlyze', 'rb') as file:
        sound = file.read()
    rng = random.Random(5)
    for number in range(4):
        damaged = bytearray(sound)
        for _ in range(1 + 3 * number):
            damaged[rng.randrange(64, len(damaged))] ^= 1 << rng.randrange(8)
        if number % 2:
            del damaged[rng.randrange(len(damaged) // 2, len(damaged)):]
        with open('damaged.mlyze', 'wb') as file:
            file.write(damaged)
        same_for_any_jobs('damaged.mlyze', [('stats', '--json'), ('leaks', '--json'), ('top', '--json', '--to', '80%'), ('gc',)], jobs=(3,))


@case
def a_number_of_threads_that_is_none_is_refused():
    make('small.mlyze', events=1000)
    for wrong in ('-1', 'many', '1.5'):
        result = execute([MEMLYZE, 'top', 'small.mlyze', '--jobs', wrong])
        assert result.returncode == 2 and 'jobs' in result.stderr, (wrong, result.stderr)
    for fine in ('1', '1000000', '99999999999'):
        assert execute([MEMLYZE, 'top', 'small.mlyze', '--jobs', fine]).returncode == 0, fine


@case
def threads_that_cannot_be_made_are_done_without():
    make('small.mlyze', events=EVENTS // 4)
    program = os.path.join(BUILD, 'analyzer', 'memlyze-stats')
    plain = execute([program, '--json', 'small.mlyze'])
    if resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY:
        raise Skip('the stack limit cannot be raised')
    beyond = 200000 << 30  # a thread's stack is as large as the limit: more than there are addresses
    limited = execute([program, '--json', '--jobs', '8', 'small.mlyze'],
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (beyond, resource.RLIM_INFINITY)))
    assert (limited.returncode, limited.stdout, limited.stderr) == (0, plain.stdout, plain.stderr), limited.stderr


run(__name__)
