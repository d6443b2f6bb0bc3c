/* The ceiling of the replay: the same judgement of calls that nest properly, and no more, from the
 * same arrays.  It pairs entries with returns for each task and level, keeps a stack for each CPU
 * (or task, where LOCAL), predicts every address, and holds every unmap to the top of its stack.
 * Compiled with -DSTATISTICS it also keeps what the verdict shows: hold times, callers, tasks.
 *
 * ceiling FILE LOCAL FIRST LAST PER_CPU INCR HIGH_MEMORY RUNS
 * FILE: the number of events, then the columns in the order in which main() takes them.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAP = 1, RETURN = 2, UNMAP = 3, KMAP = 13, DEEP = 32, TASKS = 1 << 22, NAMES = 1 << 16 };
typedef struct { int64_t calls, applied, line, time, value; } Context;
typedef struct { int64_t address, line, time, page, task; int caller; } Window;
typedef struct { int64_t depth; Window window[DEEP]; } Stack;
typedef struct { int64_t right, odd, maps, unmaps, low; } Result;
typedef struct { int64_t maps, deepest, closed, total, longest, line; } Row;

#ifdef STATISTICS
static int64_t holds[64], depths[DEEP + 1];
static Row callers[NAMES], tasks[NAMES];
#endif

int main(int argc, char **argv)
{
    FILE *file = argc == 9 ? fopen(argv[1], "rb") : NULL;
    int64_t n, first, last, per_cpu, incr, high;
    if (!file || fread(&n, 8, 1, file) != 1)
        return 1;
    char *all = malloc(n * 46);
    if (!all || fread(all, 46, n, file) != (size_t)n)
        return 1;
    int64_t *line = (int64_t *)all, *when = line + n, *value = when + n;
    int32_t *cpu = (int32_t *)(value + n), *pid = cpu + n, *comm = pid + n, *caller = comm + n;
    uint32_t *flags = (uint32_t *)(caller + n);
    uint8_t *kind = (uint8_t *)(flags + n), *function = kind + n;
    int local = atoi(argv[2]);
    first = atoll(argv[3]), last = atoll(argv[4]), per_cpu = atoll(argv[5]);
    incr = atoll(argv[6]), high = atoll(argv[7]);
    for (int run = 0; run < atoi(argv[8]); run++) {
        Context *contexts = calloc(TASKS * 4L, sizeof *contexts);
        Stack *stacks = calloc(local ? TASKS : 8192, sizeof *stacks);
        Result r = {0};
        struct timespec a, b;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        for (int64_t i = 0; i < n; i++) {
            if (function[i] >= KMAP || kind[i] < MAP || kind[i] > UNMAP)
                continue;
            int64_t task = pid[i] ? pid[i] : TASKS - 1 - cpu[i];
            int level = flags[i] & 32 ? 3 : flags[i] & 8 ? 2 : flags[i] & 16 ? 1 : 0;
            Context *c = &contexts[task * 4 + level];
            Stack *s = &stacks[local ? task : cpu[i]];
            if (kind[i] == MAP) {
                if (!c->calls++)
                    c->line = line[i], c->time = when[i], c->value = value[i];
            } else if (kind[i] == RETURN) {
                int64_t slot = s->depth * incr + incr - 1 + per_cpu * cpu[i];
                if (c->calls < 1 || s->depth >= DEEP) {
                    r.odd++;
                } else if (c->applied) {
                    r.right++;
                } else if (value[i] < high) {
                    r.low++, r.right++, r.maps++, c->applied = 1;
                } else if (value[i] != first - (slot << 12)) {
                    r.odd++;
                } else {
                    Window w = {value[i], c->line, c->time, c->value, task, caller[i]};
                    s->window[s->depth++] = w;
                    r.right++, r.maps++, c->applied = 1;
#ifdef STATISTICS
                    Row *row = &callers[(caller[i] + 1) % NAMES];
                    Row *of = &tasks[(comm[i] * 64 + task) % NAMES];
                    depths[s->depth]++, row->maps++, of->maps++;
                    row->deepest = s->depth > row->deepest ? s->depth : row->deepest;
                    of->deepest = s->depth > of->deepest ? s->depth : of->deepest;
#endif
                }
                if (c->calls && !--c->calls)
                    c->applied = 0;
            } else if ((value[i] & 0xfffff000) < last || (value[i] & 0xfffff000) > first) {
                r.low++, r.unmaps++;
            } else {
                Window *w = &s->window[s->depth ? s->depth - 1 : 0];
                if (!s->depth || w->address != (value[i] & 0xfffff000) || w->task != task) {
                    r.odd++;
                    continue;
                }
                s->depth--, r.unmaps++;
#ifdef STATISTICS
                int64_t held = when[i] - w->time;
                Row *row = &callers[(w->caller + 1) % NAMES];
                holds[63 - __builtin_clzll(held | 1)]++, row->closed++, row->total += held;
                if (held > row->longest)
                    row->longest = held, row->line = w->line;
#endif
            }
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        double spent = b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9;
        printf("%.6f %lld %lld %lld %lld %lld\n", spent,
               (long long)r.right, (long long)r.odd, (long long)r.maps, (long long)r.unmaps,
               (long long)r.low);
        free(contexts), free(stacks);
    }
    return 0;
}
