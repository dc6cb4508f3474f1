package main

import (
	"context"
	"math/rand/v2"
	"time"
)

// sample is what became of one read.
type sample struct {
	at      time.Time     // its moment
	took    time.Duration // from that moment to the last byte
	outcome outcome
}

type outcome uint8

func (l *load) readAll(ctx context.Context, rnd *rand.Rand) error { return nil }
