#include "tracer/recorder/output.h"
#include "tracer/recorder/session.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/memlyze-test-XXXXXX", base[32], err[8192];

static void enter(void) {
  cr_assert_not_null(mkdtemp(dir));
  cr_assert_eq(chdir(dir), 0);
  setenv("TMPDIR", dir, 1);
  unsetenv("XDG_RUNTIME_DIR");
  snprintf(base, sizeof base, "memlyze-%u", (unsigned)geteuid());
}
static void leave(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  cr_assert_eq(system(command), 0);
}

static unsigned sessions(void) {
  unsigned n = 0;
  DIR *d = opendir(base);
  for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
  if (d) closedir(d);
  return n;
}

TestSuite(session, .init = enter, .fini = leave);
TestSuite(output, .init = enter, .fini = leave);

Test(session, made_linked_removed) {
  struct mlz_session s;
  char path[600], target[600];
  struct stat st;
  cr_assert_eq(mlz_session_make(&s, err, sizeof err), 0, "%s", err);
  cr_assert_eq(mlz_session_link(&s, "/somewhere/libmemlyze.so", 7), 0);
  cr_assert_eq(stat(s.path, &st), 0);
  cr_assert_eq(st.st_mode & 0777, 0711, "others pass through, and no more");
  cr_assert_eq(strncmp(s.path, dir, strlen(dir)), 0);
  snprintf(path, sizeof path, "%s/arena", s.path);
  ssize_t n = readlink(path, target, sizeof target - 1);
  cr_assert_gt(n, 0);
  target[n] = 0;
  char want[64];
  snprintf(want, sizeof want, "/proc/%d/fd/7", (int)getpid());
  cr_assert_str_eq(target, want);
  mlz_session_remove(&s);
  cr_assert_eq(sessions(), 0);
}

Test(session, those_of_the_dead_are_swept) {
  struct mlz_session dead, living, mine;
  cr_assert_eq(mlz_session_make(&dead, err, sizeof err), 0);
  cr_assert_eq(mlz_session_link(&dead, "/somewhere/libmemlyze.so", 7), 0);
  cr_assert_eq(mlz_session_make(&living, err, sizeof err), 0);
  close(dead.fd); /* with it goes the lock, as when the recorder dies */
  close(dead.base);
  cr_assert_eq(mlz_session_make(&mine, err, sizeof err), 0);
  cr_assert_eq(sessions(), 2);
  cr_assert_eq(access(living.path, F_OK), 0);
  cr_assert_eq(access(dead.path, F_OK), -1);
  mlz_session_remove(&living);
  mlz_session_remove(&mine);
}

/* A process that outlives its recorder and execs must not be told by the loader that the agent is gone. */
Test(session, left_while_a_process_names_it) {
  struct mlz_session s, other;
  char preload[600], link[600];
  struct stat st;
  int go[2];
  cr_assert_eq(mlz_session_make(&s, err, sizeof err), 0);
  cr_assert_eq(mlz_session_link(&s, "/somewhere/libmemlyze.so", 7), 0);
  snprintf(preload, sizeof preload, "LD_PRELOAD_OF_TEST=%s/libmemlyze.so", s.path);
  snprintf(link, sizeof link, "%s/libmemlyze.so", s.path);
  cr_assert_eq(pipe(go), 0);
  pid_t child = fork();
  if (child == 0) {
    close(go[1]);
    dup2(go[0], 0);
    execle("/bin/cat", "cat", NULL, (char *[]){preload, NULL});
    _exit(1);
  }
  close(go[0]);
  char path[64], comm[32] = "";
  snprintf(path, sizeof path, "/proc/%d/comm", (int)child);
  for (int i = 0; i < 1000 && strcmp(comm, "cat\n") != 0; i++) { /* until it has execed */
    usleep(1000);
    FILE *f = fopen(path, "r");
    if (f && !fgets(comm, sizeof comm, f)) comm[0] = 0;
    if (f) fclose(f);
  }
  mlz_session_leave(&s);
  cr_assert_eq(lstat(link, &st), 0);
  cr_assert_eq(mlz_session_make(&other, err, sizeof err), 0);
  cr_assert_eq(lstat(link, &st), 0, "not swept while it is named");
  mlz_session_remove(&other);
  close(go[1]);
  waitpid(child, NULL, 0);
  cr_assert_eq(mlz_session_make(&other, err, sizeof err), 0);
  cr_assert_eq(lstat(link, &st), -1, "swept by the next");
  mlz_session_leave(&other);
  cr_assert_eq(sessions(), 0);
}

/* Somebody else's link in the place of our directory is not followed; the other place is taken. */
Test(session, a_planted_link_is_not_followed) {
  struct mlz_session s;
  cr_assert_eq(mkdir("elsewhere", 0700), 0);
  cr_assert_eq(symlink("elsewhere", base), 0);
  cr_assert_lt(mlz_session_make(&s, err, sizeof err), 0);
  cr_assert_eq(mkdir("own", 0700), 0);
  char own[64];
  snprintf(own, sizeof own, "%s/own", dir);
  setenv("XDG_RUNTIME_DIR", own, 1);
  cr_assert_eq(mlz_session_make(&s, err, sizeof err), 0, "%s", err);
  cr_assert_eq(strncmp(s.path, own, strlen(own)), 0, "%s", s.path);
  cr_assert_eq(rmdir("elsewhere"), 0, "nothing was made in it");
  mlz_session_remove(&s);
}

Test(session, a_directory_that_preload_cannot_name) {
  struct mlz_session s;
  cr_assert_eq(mkdir("a b:c", 0700), 0);
  char path[128];
  snprintf(path, sizeof path, "%s/a b:c", dir);
  setenv("TMPDIR", path, 1);
  cr_assert_eq(mlz_session_make(&s, err, sizeof err), 0);
  cr_assert_null(strpbrk(s.path, " :"));
  mlz_session_remove(&s);
}

/* ---- the output's name ---- */

static void write_file(const char *name, const char *text) {
  FILE *f = fopen(name, "w");
  fputs(text, f);
  fclose(f);
}
static const char *text_of(const char *name) {
  static char text[64];
  FILE *f = fopen(name, "r");
  text[0] = 0;
  if (!f) return "(none)";
  if (!fgets(text, sizeof text, f)) text[0] = 0;
  fclose(f);
  return text;
}
static void make(const char *name, const char *text, bool force) {
  struct mlz_output o;
  cr_assert_eq(mlz_output_open(&o, name, err, sizeof err), 0, "%s", err);
  cr_assert_eq(write(o.fd, text, strlen(text)), (ssize_t)strlen(text));
  close(o.fd);
  cr_assert_eq(mlz_output_place(&o, force, err, sizeof err), 0, "%s", err);
}

Test(output, keeps_the_old_file) {
  struct stat st;
  make("t.mlyze", "one", false);
  cr_assert_eq(stat("t.mlyze", &st), 0);
  cr_assert_eq(st.st_mode & 0777, 0600);
  make("t.mlyze", "two", false);
  cr_assert_str_eq(text_of("t.mlyze"), "two");
  cr_assert_str_eq(text_of("t.mlyze.old"), "one");
  make("t.mlyze", "three", true);
  cr_assert_str_eq(text_of("t.mlyze"), "three");
  cr_assert_str_eq(text_of("t.mlyze.old"), "one", "-f leaves FILE.old alone");
}

Test(output, abandoned_leaves_everything_as_it_was) {
  struct mlz_output o;
  write_file("t.mlyze", "old");
  cr_assert_eq(mlz_output_open(&o, "t.mlyze", err, sizeof err), 0);
  close(o.fd);
  mlz_output_abandon(&o);
  cr_assert_str_eq(text_of("t.mlyze"), "old");
  cr_assert_eq(access(o.temporary, F_OK), -1);
}

Test(output, a_link_keeps_pointing) {
  char target[64] = "";
  write_file("real", "old");
  cr_assert_eq(symlink("real", "link"), 0);
  make("link", "new", false);
  cr_assert_eq(readlink("link", target, sizeof target - 1), 4);
  cr_assert_str_eq(text_of("real"), "new");
  cr_assert_str_eq(text_of("real.old"), "old");
}

Test(output, what_cannot_be_written) {
  struct mlz_output o;
  cr_assert_eq(mlz_output_open(&o, "no/such/t.mlyze", err, sizeof err), -ENOENT);
  cr_assert_not_null(strstr(err, "no/such/t.mlyze"));
  cr_assert_null(strchr(err, '\n'));
  cr_assert_eq(mlz_output_open(&o, ".", err, sizeof err), -EISDIR);
  cr_assert_eq(mlz_output_open(&o, "/dev/null", err, sizeof err), 0);
  cr_assert_str_eq(o.temporary, "", "a device is written in place");
  close(o.fd);
}
