/*
 * A workload whose consumption is known: the yardstick that metering is held against.
 *
 *   workload burn [--millicores N] [--mib N] [--send-to IPv4:PORT] [--bytes N] [--byte-rate N] [--duration S] [--log-every S]
 *   workload sink [--port N] [--duration S] [--log-every S]
 *
 * burn uses N milli-cores by a duty cycle against its own CPU clocks (one thread per started core), holds N MiB of touched
 * anonymous memory and sends UDP datagrams at a steady rate. UDP, because there the bytes on the interface are exact:
 * payload + 42 per datagram (Ethernet 14, IPv4 20, UDP 8), without acknowledgements, retransmissions or segmentation.
 * sink receives datagrams and counts them the same way.
 *
 * Every --log-every seconds, and at the end (duration over, SIGTERM, SIGINT), one JSON line tells the truth:
 *   {"wall": unix seconds, "elapsed": s, "cpu_seconds": s, "mib": MiB held, "datagrams": n, "payload_bytes": n, "wire_bytes": n,
 *    "final": bool, "reason": "running" | "duration" | "signal"}
 * The last one is also written to /dev/termination-log, so that the pod's status carries it after the container is gone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD = 1400, FRAME_OVERHEAD = 42, MAX_THREADS = 64 };
static const double TICK = 0.010, LONGEST_CATCH_UP = 0.5;

static struct {
    bool sink;
    long millicores, mib, port;
    long long bytes, byte_rate;
    double duration, log_every;
    struct sockaddr_in peer;
} options = {.port = 9000, .log_every = 5.0};

static volatile sig_atomic_t stopping;
static unsigned long long datagrams, payload_bytes;

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pause_for(double s) {
    if (s <= 0) return;
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void refuse(const char *what, const char *value) {
    fprintf(stderr, "workload: %s: %s\n", what, value);
    exit(2);
}

/* Uses `share` of one core: each tick, spins until the thread's CPU clock has caught up with share x wall time. */
static void *burn_share(void *argument) {
    double share = *(double *)argument;
    double wall_start = seconds(CLOCK_MONOTONIC), cpu_start = seconds(CLOCK_THREAD_CPUTIME_ID);
    while (!stopping) {
        double due = (seconds(CLOCK_MONOTONIC) - wall_start) * share;
        double used = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu_start;
        if (due - used > LONGEST_CATCH_UP) cpu_start -= due - used - LONGEST_CATCH_UP; /* starved: do not repay it all */
        while (!stopping && seconds(CLOCK_THREAD_CPUTIME_ID) - cpu_start < due)
            for (volatile int i = 0; i < 2000; i++) {
            }
        if (share < 1.0) pause_for(TICK);
    }
    return NULL;
}

static void start_burning(long millicores) {
    static double shares[MAX_THREADS];
    for (int i = 0; millicores > 0; i++, millicores -= 1000) {
        if (i == MAX_THREADS) refuse("--millicores", "more than 64 cores");
        pthread_t thread;
        shares[i] = millicores > 1000 ? 1.0 : (double)millicores / 1000.0;
        if (pthread_create(&thread, NULL, burn_share, &shares[i]) != 0) refuse("cannot start a thread", strerror(errno));
    }
}

static void hold_memory(long mib) {
    if (mib <= 0) return;
    size_t size = (size_t)mib << 20;
    unsigned char *held = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (held == MAP_FAILED) refuse("--mib cannot be held", strerror(errno));
    for (size_t at = 0; at < size; at += 4096) held[at] = 1;
}

static void tell(double start, const char *reason) {
    char line[512];
    int length = snprintf(
        line, sizeof line,
        "{\"wall\": %.6f, \"elapsed\": %.6f, \"cpu_seconds\": %.6f, \"mib\": %ld, \"datagrams\": %llu, \"payload_bytes\": %llu, "
        "\"wire_bytes\": %llu, \"final\": %s, \"reason\": \"%s\"}\n",
        seconds(CLOCK_REALTIME), seconds(CLOCK_MONOTONIC) - start, seconds(CLOCK_PROCESS_CPUTIME_ID), options.mib, datagrams,
        payload_bytes, payload_bytes + datagrams * FRAME_OVERHEAD, strcmp(reason, "running") ? "true" : "false", reason);
    if (write(STDOUT_FILENO, line, (size_t)length) < 0) stopping = 1;
    if (strcmp(reason, "running") == 0) return;
    int file = open("/dev/termination-log", O_WRONLY | O_TRUNC);
    if (file < 0) return; /* outside a pod there is none */
    if (write(file, line, (size_t)length) < 0) perror("workload: /dev/termination-log");
    close(file);
}

/* Sends what is due by now. A refused port (ICMP from the peer) does not matter: the datagram has left the interface. */
static void send_due(int socket, double elapsed) {
    static const char payload[PAYLOAD];
    double due = elapsed * (double)options.byte_rate;
    if (options.bytes > 0 && due > (double)options.bytes) due = (double)options.bytes;
    while (!stopping && (double)payload_bytes < due) {
        size_t size = PAYLOAD;
        if (options.bytes > 0 && (unsigned long long)options.bytes - payload_bytes < PAYLOAD) size = (size_t)options.bytes - payload_bytes;
        else if (due - (double)payload_bytes < PAYLOAD) return; /* full datagrams only, save the very last one */
        ssize_t sent = sendto(socket, payload, size, 0, (struct sockaddr *)&options.peer, sizeof options.peer);
        if (sent < 0) return; /* refused or no buffer: tried again at the next tick */
        payload_bytes += (unsigned long long)sent;
        datagrams++;
    }
}

static void receive_waiting(int socket) {
    char buffer[65536];
    for (ssize_t got; (got = recv(socket, buffer, sizeof buffer, MSG_DONTWAIT)) >= 0;) {
        payload_bytes += (unsigned long long)got;
        datagrams++;
    }
}

static int open_socket(void) {
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (udp < 0) refuse("cannot open a socket", strerror(errno));
    if (!options.sink) return udp;
    int size = 8 << 20;
    setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* best effort: the kernel caps it */
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)options.port)};
    if (bind(udp, (struct sockaddr *)&own, sizeof own) < 0) refuse("--port cannot be bound", strerror(errno));
    return udp;
}

static void parse_peer(char *value) {
    char *colon = strrchr(value, ':');
    if (colon == NULL) refuse("--send-to needs IPv4:PORT", value);
    *colon = '\0';
    options.peer.sin_family = AF_INET;
    options.peer.sin_port = htons((unsigned short)atoi(colon + 1));
    if (inet_pton(AF_INET, value, &options.peer.sin_addr) != 1 || options.peer.sin_port == 0) refuse("--send-to needs IPv4:PORT", value);
}

static double number(const char *flag, const char *value) {
    char *end;
    double parsed = strtod(value, &end);
    if (end == value || *end != '\0' || !(parsed >= 0 && parsed < 1e15)) refuse(flag, value);
    return parsed;
}

static void parse_option(const char *flag, char *value) {
    if (strcmp(flag, "--send-to") == 0) parse_peer(value);
    else if (strcmp(flag, "--millicores") == 0) options.millicores = (long)number(flag, value);
    else if (strcmp(flag, "--mib") == 0) options.mib = (long)number(flag, value);
    else if (strcmp(flag, "--bytes") == 0) options.bytes = (long long)number(flag, value);
    else if (strcmp(flag, "--byte-rate") == 0) options.byte_rate = (long long)number(flag, value);
    else if (strcmp(flag, "--port") == 0) options.port = (long)number(flag, value);
    else if (strcmp(flag, "--duration") == 0) options.duration = number(flag, value);
    else if (strcmp(flag, "--log-every") == 0) options.log_every = number(flag, value);
    else refuse("unknown option", flag);
}

static void parse(int count, char **arguments) {
    if (count < 2) refuse("needs a mode", "burn or sink");
    options.sink = strcmp(arguments[1], "sink") == 0;
    if (!options.sink && strcmp(arguments[1], "burn") != 0) refuse("unknown mode (burn or sink)", arguments[1]);
    for (int i = 2; i < count; i += 2) {
        if (i + 1 == count) refuse("option without a value", arguments[i]);
        parse_option(arguments[i], arguments[i + 1]);
    }
    if ((options.bytes > 0 || options.byte_rate > 0) && options.peer.sin_port == 0) refuse("bytes need an address", "--send-to");
    if (options.bytes > 0 && options.byte_rate == 0)
        options.byte_rate = options.duration > 0 ? (long long)((double)options.bytes / options.duration) + 1 : 1 << 20;
}

int main(int count, char **arguments) {
    parse(count, arguments);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int udp = open_socket();
    hold_memory(options.mib);
    double start = seconds(CLOCK_MONOTONIC), told = 0.0, elapsed = 0.0;
    start_burning(options.millicores);
    tell(start, "running");
    while (!stopping && (options.duration == 0 || elapsed < options.duration)) {
        pause_for(TICK);
        elapsed = seconds(CLOCK_MONOTONIC) - start;
        if (options.sink) receive_waiting(udp);
        else if (options.byte_rate > 0) send_due(udp, elapsed);
        if (options.log_every > 0 && elapsed - told >= options.log_every) {
            told += options.log_every;
            tell(start, "running");
        }
    }
    bool signalled = stopping;
    stopping = 1; /* the burners end before the last line is told: what they use after it would be untold */
    pause_for(2 * TICK);
    tell(start, signalled ? "signal" : "duration");
    return 0;
}
