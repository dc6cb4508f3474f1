package rebuild

import (
	"context"
	"errors"
	"sync"
)

// each calls f for 0 to n-1, RowWorkers at once, and returns what failed. After
// an error the others go on; the end of ctx ends it.
func (r *Rebuild) each(ctx context.Context, n int, f func(int) error) error {
	return parallel(ctx, r.cfg.RowWorkers, n, f)
}

func parallel(ctx context.Context, workers, n int, f func(int) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	next := make(chan int)
	for range min(workers, n) {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	if len(errs) > maxErrors {
		errs = errs[:maxErrors]
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// maxErrors bounds what one error tells of many that are alike.
const maxErrors = 8
