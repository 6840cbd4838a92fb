#include "analyzer/resident.h"

const struct mlz_process *mlz_resident_process(const struct mlz_input *in, const struct mlz_rss *seen) {
  size_t n = in->n_processes;
  if (seen->process - 1 < n && in->processes[seen->process - 1]->id == seen->process) return in->processes[seen->process - 1];
  for (size_t i = 0; i < n; i++)
    if (in->processes[i]->id == seen->process) return in->processes[i];
  return NULL;
}

bool mlz_resident_peak(struct mlz_input *in, uint64_t *bytes, uint64_t *ns) {
  size_t n;
  const struct mlz_rss *seen = mlz_trace_rss(in->trace, &n);
  uint64_t most = 0, sum = 0;
  for (size_t i = 0; i < n; i++) {
    if (i && seen[i].ns != seen[i - 1].ns) sum = 0;
    const struct mlz_process *p = mlz_resident_process(in, &seen[i]);
    if (p && p->chosen) sum += seen[i].bytes;
    if (sum <= most) continue;
    *bytes = most = sum;
    *ns = seen[i].ns;
  }
  return most != 0;
}
