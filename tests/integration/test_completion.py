"""The bash completion, asked as the shell asks it."""
import os
import subprocess

from harness import MEMLYZE, TESTS, case, clean_env, run, same

SCRIPT = os.path.join(os.path.dirname(TESTS), 'docs', 'completions', 'memlyze.bash')


def complete(*words):
    """What is offered for the last of the words."""
    shell = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); previous=${COMP_WORDS[COMP_CWORD - 1]}; ' \
            '_memlyze "$1" "${COMP_WORDS[COMP_CWORD]}" "$previous"; printf "%s\\n" "${COMPREPLY[@]}"'
    env = clean_env(PATH=os.path.dirname(MEMLYZE) + ':' + os.environ['PATH'])
    out = subprocess.run(['bash', '--norc', '-c', shell, 'bash', SCRIPT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                         universal_newlines=True, timeout=60)
    same('stderr', out.stderr, '')
    return set(out.stdout.split())


@case
def tools():
    assert {'record', 'control', 'stats', 'top', 'leaks', 'flame', 'gc', 'help'} <= complete('memlyze', '')
    same('after "le"', complete('memlyze', 'le'), {'leaks'})
    same('after "help f"', complete('memlyze', 'help', 'f'), {'flame'})


@case(each=[('memlyze top', ['memlyze', 'top']), ('memlyze-top', ['memlyze-top'])])
def options_and_their_values(words):
    assert {'--by', '--group', '--json', '--process'} <= complete(*words, '--')
    same('--gr', complete(*words, '--gr'), {'--group'})
    assert {'line', 'function', 'domain'} <= complete(*words, '--group', '')
    same('--by p', complete(*words, '--by', 'p'), {'peak-bytes'})


@case
def traces_and_folders():
    os.mkdir('folder')
    for name in ('one.mlyze', 'two.txt'):
        open(name, 'w').close()
    same('files', complete('memlyze', 'leaks', ''), {'one.mlyze', 'folder/'})


@case
def options_that_take_files():
    for name in ('one.mlyze', 'base.json'):
        open(name, 'w').close()
    same('after --baseline', complete('memlyze', 'check', '--baseline', ''), {'one.mlyze', 'base.json'})
    same('after --suppress', complete('memlyze-leaks', '--suppress', 'b'), {'base.json'})
    same('the second trace', complete('memlyze', 'diff', 'one.mlyze', ''), {'one.mlyze'})
    same('formats', complete('memlyze', 'check', '--format', 's'), {'sarif'})
    assert {'diff', 'check'} <= complete('memlyze', '')


@case
def the_command_s_words_are_its_own():
    open('app.py', 'w').close()
    assert '--sample-rate' in complete('memlyze', 'record', '--')
    same('of --on-full', complete('memlyze', 'record', '--on-full', ''), {'block', 'drop'})
    same('after COMMAND', complete('memlyze', 'record', '-o', 'x', 'python3', ''), {'app.py'})
    assert 'python3' in complete('memlyze', 'record', 'pytho')


@case
def control_has_no_files():
    open('one.mlyze', 'w').close()
    assert {'--pid', '--sample-rate', '--mark'} <= complete('memlyze', 'control', '--')
    same('no trace', complete('memlyze-control', '--mark', ''), set())
    same('sessions that run', {word for word in complete('memlyze', 'control', '--pid', '') if not word.isdigit()}, set())


run(__name__)
