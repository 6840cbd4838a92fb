/* The analyzers' mains under names of their own, so that one program can run them all: built with -Dmain=mlz_main_TOOL. */
#ifndef MLZ_TESTS_TOOL_MAINS_H
#define MLZ_TESTS_TOOL_MAINS_H

int mlz_main_stats(int argc, char **argv);
int mlz_main_top(int argc, char **argv);
int mlz_main_leaks(int argc, char **argv);
int mlz_main_flame(int argc, char **argv);
int mlz_main_gc(int argc, char **argv);
int mlz_main_diff(int argc, char **argv);
int mlz_main_check(int argc, char **argv);
int mlz_main_export(int argc, char **argv);
int mlz_main_annotate(int argc, char **argv);
int mlz_main_verify(int argc, char **argv);

#endif
