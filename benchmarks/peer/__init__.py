"""What `benchmarks.bench_peer` runs in the environment of the peer, hftbacktest: two scripts that import no mmlab."""
