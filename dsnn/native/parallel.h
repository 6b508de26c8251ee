/* Work shared out over XLA's own threads. */

#ifndef DSNN_PARALLEL_H
#define DSNN_PARALLEL_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "xla/ffi/api/c_api.h"

enum { PATIENCE = 4096 };

typedef struct job {
  atomic_int next, done, users;
  int parts;
  atomic_int failed;
  int (*work)(const void *task, int part); /* 0, or 1 when memory ran out */
  const void *task;
} job;

static void take_parts(job *j) {
  for (int part; (part = atomic_fetch_add(&j->next, 1)) < j->parts; atomic_fetch_add(&j->done, 1))
    if (j->work(j->task, part)) atomic_store(&j->failed, 1);
}

static void leave(job *j) {
  if (atomic_fetch_sub(&j->users, 1) == 1) free(j);
}

/* A helper that starts late finds nothing left to take and touches only the job, which the last user frees. */
static void help(void *data) {
  take_parts(data);
  leave(data);
}

static int threads(const XLA_FFI_CallFrame *frame) {
  int64_t count = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &count};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error) {
    XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
    frame->api->XLA_FFI_Error_Destroy(&destroy);
    return 1;
  }
  return count < 1 ? 1 : (int)count;
}

static int in_parallel(const XLA_FFI_CallFrame *frame, int workers, int parts, int (*work)(const void *, int),
                       const void *task) {
  job *j = malloc(sizeof *j);
  if (!j) return 1;
  int helpers = (workers < parts ? workers : parts) - 1;
  atomic_init(&j->next, 0);
  atomic_init(&j->done, 0);
  atomic_init(&j->failed, 0);
  atomic_init(&j->users, 1);
  j->parts = parts, j->work = work, j->task = task;
  for (int i = 0; i < helpers; ++i) {
    atomic_fetch_add(&j->users, 1);
    XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help, j};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
    if (error) { /* no pool: this thread does it all */
      XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      leave(j);
      break;
    }
  }
  take_parts(j);
  for (int waits = 0; atomic_load(&j->done) < parts; ++waits) { /* only parts that a helper is at work on are outstanding */
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (waits > PATIENCE) sched_yield(); /* its core may be taken by another process, which this one keeps from working */
  }
  int failed = atomic_load(&j->failed);
  leave(j);
  return failed;
}

#endif
