/*
 * Looks names up as programs do that are linked with a C library: getaddrinfo for addresses, res_query for SRV records. It is
 * compiled for glibc and for musl. See lookup.go for the arguments and for what is printed.
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int addresses(const char *name, int family)
{
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *all, *a;
	char text[INET6_ADDRSTRLEN];
	int err = getaddrinfo(name, NULL, &hints, &all);

	if (err) {
		printf("error %s\n", gai_strerror(err));
		return 0;
	}
	for (a = all; a; a = a->ai_next) {
		const void *at = a->ai_family == AF_INET ? (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
							 : (const void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		printf("%s\n", inet_ntop(a->ai_family, at, text, sizeof text));
	}
	freeaddrinfo(all);
	return 0;
}

static int services(const char *name)
{
	static unsigned char answer[65535];
	char target[NS_MAXDNAME];
	ns_msg message;
	ns_rr record;
	int n = res_query(name, ns_c_in, ns_t_srv, answer, sizeof answer);

	if (n < 0) {
		printf("error no answer\n");
		return 0;
	}
	if (n > (int)sizeof answer || ns_initparse(answer, n, &message)) {
		printf("error %d octets that make no sense\n", n);
		return 0;
	}
	for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
		if (ns_parserr(&message, ns_s_an, i, &record) || ns_rr_type(record) != ns_t_srv)
			continue;
		const unsigned char *data = ns_rr_rdata(record);
		if (dn_expand(ns_msg_base(message), ns_msg_end(message), data + 6, target, sizeof target) < 0) {
			printf("error a name that makes no sense\n");
			return 0;
		}
		printf("%s:%u\n", target, ns_get16(data + 4));
	}
	return 0;
}

static int look(const char *what, const char *name)
{
	if (!strcmp(what, "a"))
		return addresses(name, AF_INET);
	if (!strcmp(what, "aaaa"))
		return addresses(name, AF_INET6);
	if (!strcmp(what, "any"))
		return addresses(name, AF_UNSPEC);
	if (!strcmp(what, "srv"))
		return services(name);
	return 2;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int err = look(argv[1], argv[2]);
	for (int i = 3; i < argc && !err; i++) {
		long ms = atol(argv[i]);
		struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
		nanosleep(&pause, NULL);
		printf("again\n");
		err = look(argv[1], argv[2]);
	}
	return err;
}
