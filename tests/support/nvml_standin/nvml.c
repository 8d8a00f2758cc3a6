/* Stands in for NVIDIA's libnvidia-ml.so.1: what it answers is written in a script.
 *
 * The script is the file that FOREBAY_STAND_IN_NVML names, read again whenever it has changed. Its
 * lines are documented in __init__.py, which writes it. Layouts and numbers are those of NVML's
 * public interface, as nvidia-ml-py 13 declares them.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { MAX_DEVICES = 256, MAX_PROCESSES = 1024, MAX_RULES = 64, MAX_EVENTS = 4096, MAX_SETS = 256 };
enum { FIELD_RECOVERY_ACTION = 230 };

typedef unsigned long long u64;
typedef unsigned int u32;

typedef struct {
    int there, lost, parent, mig, gi, ci;  /* parent: its number, or -1 */
    int utilization, temperature, power, limit, recovery, pending, failed, events, recovery_known;
    u64 total, used;
    long long corrected, uncorrected;
    char uuid[96], name[96];
} device_t;
typedef struct { int device; u32 pid; u64 used; } process_t;
typedef struct { char call[64], uuid[96]; int code, hang_ms; } rule_t;
typedef struct { int device; u64 type, data; u32 gi, ci; } event_t;
typedef struct {
    int device_count, process_count, rule_count, event_count, driver;
    device_t devices[MAX_DEVICES];
    process_t processes[MAX_PROCESSES];
    rule_t rules[MAX_RULES];
    event_t events[MAX_EVENTS];
} script_t;
typedef struct { int used, cursor, free; unsigned char registered[MAX_DEVICES]; } set_t;

typedef struct { u64 total, free, used; } memory_t;
typedef struct { u32 version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { u32 gpu, memory; } utilization_t;
typedef struct { u32 pid; u64 used; u32 gi, ci; } process_info_t;
typedef struct { void *device; u64 type, data; u32 gi, ci; } event_data_t;
typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    int type, code;
    union { double d; int i; u32 u; u64 l; } value;
} field_value_t;

static script_t script;
static set_t sets[MAX_SETS];
static struct stat last;
static int initialized;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find(const char *uuid) {
    for (int i = 0; i < script.device_count; i++)
        if (!strcmp(script.devices[i].uuid, uuid)) return i;
    return -1;
}

/* Numbers of devices stay what they are, as a handle does; `there` says which the script has now. */
static device_t *device_named(const char *uuid) {
    int i = find(uuid);
    if (i < 0) {
        if (script.device_count == MAX_DEVICES) return NULL;
        i = script.device_count++;
    }
    device_t *device = &script.devices[i];
    memset(device, 0, sizeof *device);
    snprintf(device->uuid, sizeof device->uuid, "%s", uuid);
    device->there = 1;
    device->parent = device->gi = device->ci = -1;
    device->utilization = device->temperature = device->power = device->limit = -1;
    device->corrected = device->uncorrected = -1;
    device->events = 1;
    return device;
}

static void set_number(device_t *device, const char *key, long long value) {
    if (!strcmp(key, "memory")) device->total = value;
    else if (!strcmp(key, "used")) device->used = value;
    else if (!strcmp(key, "utilization")) device->utilization = value;
    else if (!strcmp(key, "temperature")) device->temperature = value;
    else if (!strcmp(key, "power")) device->power = value;
    else if (!strcmp(key, "limit")) device->limit = value;
    else if (!strcmp(key, "corrected")) device->corrected = value;
    else if (!strcmp(key, "uncorrected")) device->uncorrected = value;
    else if (!strcmp(key, "lost")) device->lost = value;
    else if (!strcmp(key, "mig")) device->mig = value;
    else if (!strcmp(key, "gi")) device->gi = value;
    else if (!strcmp(key, "ci")) device->ci = value;
    else if (!strcmp(key, "events")) device->events = value;
    else if (!strcmp(key, "pending")) device->pending = value;
    else if (!strcmp(key, "failed")) device->failed = value;
    else if (!strcmp(key, "recovery")) { device->recovery = value; device->recovery_known = 1; }
}

static void read_device(char *rest) {
    char *save = NULL, *uuid = strtok_r(rest, " ", &save), *word;
    device_t *device = uuid ? device_named(uuid) : NULL;
    while (device && (word = strtok_r(NULL, " ", &save))) {
        char *equals = strchr(word, '=');
        if (!equals) continue;
        *equals = 0;
        if (!strcmp(word, "name")) {
            snprintf(device->name, sizeof device->name, "%s", equals + 1);
            for (char *c = device->name; *c; c++) if (*c == '_') *c = ' ';
        } else if (!strcmp(word, "parent")) {
            device->parent = find(equals + 1);
        } else {
            set_number(device, word, atoll(equals + 1));
        }
    }
}

static void read_line(char *line) {
    char uuid[96] = "", call[64] = "";
    u64 a = 0, b = 0;
    int c = -1, d = -1;
    if (!strncmp(line, "device ", 7)) {
        read_device(line + 7);
    } else if (sscanf(line, "driver %d", &c) == 1) {
        script.driver = c;
    } else if (sscanf(line, "process %95s %llu %llu", uuid, &a, &b) == 3) {
        if (script.process_count < MAX_PROCESSES && find(uuid) >= 0)
            script.processes[script.process_count++] = (process_t){find(uuid), (u32)a, b};
    } else if (sscanf(line, "error %63s %d %95s", call, &c, uuid) >= 2
               || sscanf(line, "hang %63s %d %95s", call, &d, uuid) >= 2) {
        if (script.rule_count < MAX_RULES) {
            rule_t *rule = &script.rules[script.rule_count++];
            *rule = (rule_t){.code = c < 0 ? 0 : c, .hang_ms = d < 0 ? 0 : d};
            memcpy(rule->call, call, sizeof call);
            memcpy(rule->uuid, uuid, sizeof uuid);
        }
    } else if (sscanf(line, "event %95s %llu %llu %d %d", uuid, &a, &b, &c, &d) >= 3) {
        if (script.event_count < MAX_EVENTS)
            script.events[script.event_count++] = (event_t){find(uuid), a, b, (u32)c, (u32)d};
    }
}

static void look(void) {
    const char *path = getenv("FOREBAY_STAND_IN_NVML");
    struct stat now;
    if (!path || stat(path, &now)) return;
    if (now.st_ino == last.st_ino && now.st_size == last.st_size
        && now.st_mtim.tv_sec == last.st_mtim.tv_sec && now.st_mtim.tv_nsec == last.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    last = now;
    for (int i = 0; i < script.device_count; i++) script.devices[i].there = 0;
    script.process_count = script.rule_count = script.event_count = 0;
    script.driver = 1;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        read_line(line);
    }
    fclose(file);
}

static void sleep_ms(int ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&left, NULL);
}

/* What a call on a device (or NULL) comes to; the device's present state in `copy`. */
static int enter(const char *call, void *handle, device_t *copy) {
    int code = SUCCESS, hang_ms = 0, number = handle ? (int)(intptr_t)handle - 1 : -1;
    pthread_mutex_lock(&lock);
    look();
    if (!initialized) code = UNINITIALIZED;
    else if (!script.driver) code = DRIVER_NOT_LOADED;
    else if (handle && (number < 0 || number >= script.device_count)) code = INVALID_ARGUMENT;
    else if (handle) {
        *copy = script.devices[number];
        int parent = copy->parent;
        if (copy->lost || (parent >= 0 && script.devices[parent].lost)) code = GPU_IS_LOST;
        else if (!copy->there) code = copy->parent >= 0 ? NOT_FOUND : GPU_IS_LOST;
    }
    for (int i = 0; i < script.rule_count; i++) {
        rule_t *rule = &script.rules[i];
        if (strcmp(rule->call, call) || (rule->uuid[0] && (!handle || strcmp(rule->uuid, copy->uuid))))
            continue;
        if (rule->code && code == SUCCESS) code = rule->code;
        if (rule->hang_ms) hang_ms = rule->hang_ms;
    }
    pthread_mutex_unlock(&lock);
    if (hang_ms) sleep_ms(hang_ms);
    return code;
}

#define ENTER(handle) \
    device_t device; \
    int code = enter(__func__, handle, &device); \
    if (code) return code
#define FIGURE(name, member, type) \
    int name(void *handle, type *value) { \
        ENTER(handle); \
        if (device.member < 0) return NOT_SUPPORTED; \
        *value = (type)device.member; \
        return SUCCESS; \
    }

int nvmlInitWithFlags(u32 flags) {
    pthread_mutex_lock(&lock);
    initialized = 1;
    pthread_mutex_unlock(&lock);
    device_t none;
    int code = enter(__func__, NULL, &none);
    if (code) initialized = 0;
    return flags ? INVALID_ARGUMENT : code;
}

int nvmlShutdown(void) {
    initialized = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int code) { return code == UNKNOWN ? "Unknown Error" : "an error"; }

int nvmlDeviceGetCount_v2(u32 *count) {
    ENTER(NULL);
    *count = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < script.device_count; i++)
        *count += script.devices[i].there && script.devices[i].parent < 0;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* The index-th device there is below a parent, or whole GPU if that is -1. */
static int nth(int parent, u32 index, void **handle) {
    for (int i = 0; i < script.device_count; i++) {
        device_t *device = &script.devices[i];
        if (!device->there || device->parent != parent || index--) continue;
        *handle = (void *)(intptr_t)(i + 1);
        return parent < 0 && device->lost ? GPU_IS_LOST : SUCCESS;
    }
    return parent < 0 ? INVALID_ARGUMENT : NOT_FOUND;
}

int nvmlDeviceGetHandleByIndex_v2(u32 index, void **handle) {
    ENTER(NULL);
    pthread_mutex_lock(&lock);
    code = nth(-1, index, handle);
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    ENTER(NULL);
    pthread_mutex_lock(&lock);
    int i = find(uuid);
    int there = i >= 0 && script.devices[i].there;
    code = !there ? NOT_FOUND : script.devices[i].lost ? GPU_IS_LOST : SUCCESS;
    *handle = (void *)(intptr_t)(i + 1);
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, u32 length) {
    ENTER(handle);
    snprintf(uuid, length, "%s", device.uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, u32 length) {
    ENTER(handle);
    snprintf(name, length, "%s", device.name);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    ENTER(handle);
    *memory = (memory_t){device.total, device.total - device.used, device.used};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *memory) {
    ENTER(handle);
    *memory = (memory_v2_t){memory->version, device.total, 0, device.total - device.used, device.used};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *handle, utilization_t *rates) {
    ENTER(handle);
    if (device.utilization < 0) return NOT_SUPPORTED;
    *rates = (utilization_t){device.utilization, 5};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *handle, u32 sensor, u32 *celsius) {
    ENTER(handle);
    if (sensor || device.temperature < 0) return sensor ? INVALID_ARGUMENT : NOT_SUPPORTED;
    *celsius = device.temperature;
    return SUCCESS;
}

FIGURE(nvmlDeviceGetPowerUsage, power, u32)
FIGURE(nvmlDeviceGetEnforcedPowerLimit, limit, u32)
FIGURE(nvmlDeviceGetGpuInstanceId, gi, u32)
FIGURE(nvmlDeviceGetComputeInstanceId, ci, u32)

int nvmlDeviceGetTotalEccErrors(void *handle, u32 type, u32 counter, u64 *count) {
    ENTER(handle);
    long long found = type ? device.uncorrected : device.corrected;
    if (counter || found < 0) return NOT_SUPPORTED;
    *count = found;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *handle, u32 *corrected, u32 *uncorrected, u32 *pending,
                              u32 *failed) {
    ENTER(handle);
    if (device.corrected < 0) return NOT_SUPPORTED;
    *corrected = *uncorrected = 0;
    *pending = device.pending;
    *failed = device.failed;
    return SUCCESS;
}

int nvmlDeviceGetFieldValues(void *handle, int count, field_value_t *values) {
    ENTER(handle);
    for (int i = 0; i < count; i++) {
        int known = values[i].field == FIELD_RECOVERY_ACTION && device.recovery_known;
        values[i].code = known ? SUCCESS : NOT_SUPPORTED;
        values[i].type = 1;
        values[i].value.l = 0;
        values[i].value.u = known ? device.recovery : 0;
    }
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, u32 *current, u32 *pending) {
    ENTER(handle);
    if (device.mig < 0) return NOT_SUPPORTED;
    *current = *pending = device.mig;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, u32 *count) {
    ENTER(handle);
    *count = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, u32 index, void **instance) {
    ENTER(handle);
    pthread_mutex_lock(&lock);
    code = nth((int)(intptr_t)handle - 1, index, instance);
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, u32 *count, process_info_t *infos) {
    ENTER(handle);
    u32 found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < script.process_count; i++) {
        process_t *process = &script.processes[i];
        if (process->device != (int)(intptr_t)handle - 1) continue;
        if (infos && found < *count)
            infos[found] = (process_info_t){process->pid, process->used, ~0u, ~0u};
        found++;
    }
    pthread_mutex_unlock(&lock);
    code = found > (infos ? *count : 0) ? INSUFFICIENT_SIZE : SUCCESS;
    *count = found;
    return code;
}

int nvmlEventSetCreate(void **set) {
    ENTER(NULL);
    code = UNKNOWN;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_SETS; i++) {
        if (sets[i].used) continue;
        memset(&sets[i], 0, sizeof sets[i]);
        sets[i].used = 1;
        sets[i].cursor = script.event_count;
        *set = (void *)(intptr_t)(i + 1);
        code = SUCCESS;
        break;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlEventSetFree(void *set) {
    pthread_mutex_lock(&lock);
    sets[(intptr_t)set - 1].used = 0;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(void *handle, u64 *types) {
    ENTER(handle);
    *types = device.events ? 0xFFFF : 0;
    return device.events ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceRegisterEvents(void *handle, u64 types, void *set) {
    ENTER(handle);
    if (!device.events || !types) return NOT_SUPPORTED;
    sets[(intptr_t)set - 1].registered[(intptr_t)handle - 1] = 1;
    return SUCCESS;
}

/* Whether the set has an event; -1 if one of its GPUs is lost, which NVML says instead. */
static int next_event(set_t *set, event_data_t *data) {
    look();
    while (set->cursor < script.event_count) {
        event_t *event = &script.events[set->cursor++];
        if (event->device < 0 || !set->registered[event->device]) continue;
        *data = (event_data_t){
            (void *)(intptr_t)(event->device + 1), event->type, event->data, event->gi, event->ci};
        return 1;
    }
    for (int i = 0; i < script.device_count; i++)
        if (set->registered[i] && (script.devices[i].lost || !script.devices[i].there)) return -1;
    return 0;
}

int nvmlEventSetWait_v2(void *set, event_data_t *data, u32 timeout_ms) {
    ENTER(NULL);
    for (u32 waited_ms = 0;; waited_ms += 5) {
        pthread_mutex_lock(&lock);
        int found = next_event(&sets[(intptr_t)set - 1], data);
        pthread_mutex_unlock(&lock);
        if (found) return found > 0 ? SUCCESS : GPU_IS_LOST;
        if (waited_ms >= timeout_ms) return TIMEOUT;
        sleep_ms(5);
    }
}
