package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClaims(2)
		ms := []*member{{name: "n1"}, {name: "n2"}, {name: "n3"}}
		soon := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			t.Cleanup(cancel)
			return ctx
		}
		first, err := c.take(soon(), ms)
		if err != nil || first != ms[0] {
			t.Fatalf("take = %v, %v", first, err)
		}
		second, err := c.take(soon(), ms)
		if err != nil || second != ms[1] {
			t.Fatalf("a second = %v, %v: not the next free one", second, err)
		}
		if m, err := c.take(soon(), ms); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a third = %v, %v: a majority must be left alone", m, err)
		}
		if c.try(ms[0]) {
			t.Error("a member is had twice")
		}
		if !c.try(ms[2]) {
			t.Error("a free member is not to be had for what does it no harm")
		}
		c.give(ms[2])

		// Who wants all waits for the two, and nobody else gets one meanwhile.
		all := make(chan error)
		go func() { all <- c.takeAll(t.Context()) }()
		synctest.Wait()
		c.give(first)
		if m, err := c.take(soon(), ms); err == nil {
			t.Errorf("%s is had while somebody waits for all", m.name)
		}
		if c.try(ms[2]) {
			t.Error("likewise")
		}
		c.give(second)
		if err := <-all; err != nil {
			t.Fatal(err)
		}
		if err := c.takeAll(soon()); err == nil {
			t.Error("all are had twice")
		}
		c.giveAll()
		if _, err := c.take(soon(), ms); err != nil {
			t.Errorf("after all were given back: %v", err)
		}
		// Who gives up waiting for all leaves nothing behind.
		if err := c.takeAll(soon()); err == nil {
			t.Error("all are had beside one")
		}
		if _, err := c.take(soon(), ms); err != nil {
			t.Errorf("after somebody gave up: %v", err)
		}
	})
}
