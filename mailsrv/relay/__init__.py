"""The way out: routes, MX, TLS policy, schedule, delivery to other servers, bounces."""
