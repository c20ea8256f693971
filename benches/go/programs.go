package main

// The programs of benches/programs.py on goroutines and Go's channels, in the same shape as the Python files beside it.

import (
	"reflect"
	"runtime"
	"sync"
	"time"
)

const (
	ringNodes = 1000
	producers = 100
	stride    = 7919
)

func produce(ch chan<- int, first, limit, step int) {
	for i := first; i < limit; i += step {
		ch <- i
	}
}

func consume(ch <-chan int, n int) int {
	total := 0
	for i := 0; i < n; i++ {
		total += <-ch
	}
	return total
}

func pipe(capacity int) program {
	return func(r *run) int {
		ch := make(chan int, capacity)
		go produce(ch, 0, r.n, 1)
		return consume(ch, r.n)
	}
}

func pingPong(r *run) int {
	there, back := make(chan int), make(chan int)
	go func() {
		for i := 0; i < r.n; i++ {
			back <- <-there + 1
		}
	}()
	total := 0
	for i := 0; i < r.n; i++ {
		sent := time.Now()
		there <- i
		total += <-back
		r.samples = append(r.samples, int64(time.Since(sent)))
	}
	return total
}

func commstime(r *run) int {
	n := r.n
	a, b, c, d := make(chan int), make(chan int), make(chan int), make(chan int)
	go func() { // prefix
		a <- 0
		for i := 0; i < n-1; i++ {
			a <- <-c
		}
		<-c
	}()
	go func() { // delta
		for i := 0; i < n; i++ {
			value := <-a
			d <- value
			b <- value
		}
	}()
	go func() { // successor
		for i := 0; i < n; i++ {
			c <- <-b + 1
		}
	}()
	return consume(d, n)
}

func ring(r *run) int {
	rounds := r.n / ringNodes
	chs := make([]chan int, ringNodes)
	for i := range chs {
		chs[i] = make(chan int)
	}
	node := func(in <-chan int, out chan<- int) {
		for i := 0; i < rounds; i++ {
			out <- <-in + 1
		}
	}
	for i := 0; i < ringNodes-1; i++ {
		go node(chs[i], chs[i+1])
	}
	token := 0
	for i := 0; i < rounds; i++ {
		chs[0] <- token
		token = <-chs[ringNodes-1] + 1
	}
	return token
}

func sieve(r *run) int {
	numbers := func(out chan<- int) {
		for i := 2; i <= r.n; i++ {
			out <- i
		}
		out <- 0
	}
	sift := func(prime int, in <-chan int, out chan<- int) {
		for number := <-in; number != 0; number = <-in {
			if number%prime != 0 {
				out <- number
			}
		}
		out <- 0
	}
	primes, ch := 0, make(chan int)
	go numbers(ch)
	for prime := <-ch; prime != 0; prime = <-ch {
		primes++
		in, out := ch, make(chan int)
		go sift(prime, in, out)
		ch = out
	}
	return primes
}

func fanIn(r *run) int {
	ch := make(chan int)
	for p := 0; p < producers; p++ {
		go produce(ch, p, r.n, producers)
	}
	return consume(ch, r.n)
}

type selector func(chs []chan int, n int) int

func select1(chs []chan int, n int) int { return consume(chs[0], n) }

func select2(chs []chan int, n int) int {
	total, a, b := 0, chs[0], chs[1]
	for i := 0; i < n; i++ {
		select {
		case value := <-a:
			total += value
		case value := <-b:
			total += value
		}
	}
	return total
}

func select4(chs []chan int, n int) int {
	total, a, b, c, d := 0, chs[0], chs[1], chs[2], chs[3]
	for i := 0; i < n; i++ {
		select {
		case value := <-a:
			total += value
		case value := <-b:
			total += value
		case value := <-c:
			total += value
		case value := <-d:
			total += value
		}
	}
	return total
}

func selectAny(chs []chan int, n int) int {
	cases := make([]reflect.SelectCase, len(chs))
	for i, ch := range chs {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)}
	}
	total := 0
	for i := 0; i < n; i++ {
		_, value, _ := reflect.Select(cases)
		total += int(value.Int())
	}
	return total
}

func channels(ways, capacity int) []chan int {
	chs := make([]chan int, ways)
	for i := range chs {
		chs[i] = make(chan int, capacity)
	}
	return chs
}

func selectReady(ways int, choose selector) program {
	return func(r *run) int {
		chs := channels(ways, r.n)
		for i := 0; i < r.n; i++ {
			chs[i%ways] <- i
		}
		r.start()
		return choose(chs, r.n)
	}
}

func selectParked(ways int, choose selector) program {
	return func(r *run) int {
		chs := channels(ways, 0)
		got := make(chan int)
		go func() { got <- choose(chs, r.n) }()
		runtime.Gosched()
		r.start()
		for i := 0; i < r.n; i++ {
			chs[i%ways] <- i
			runtime.Gosched()
		}
		return <-got
	}
}

func selecting(ways int) program {
	return func(r *run) int {
		chs := channels(ways, 0)
		go func() {
			for i := 0; i < r.n; i++ {
				chs[i*stride%ways] <- i
			}
		}()
		return selectAny(chs, r.n)
	}
}

func spawnJoin(r *run) int {
	results := make([]int, r.n)
	var group sync.WaitGroup
	group.Add(r.n)
	for i := 0; i < r.n; i++ {
		go func(i int) {
			results[i] = i
			group.Done()
		}(i)
	}
	group.Wait()
	total := 0
	for _, result := range results {
		total += result
	}
	return total
}

// onThreads runs a program with each goroutine wired to an operating system thread of its own.
func onThreads(capacity int) program {
	return func(r *run) int {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ch := make(chan int, capacity)
		go func() {
			runtime.LockOSThread()
			produce(ch, 0, r.n, 1)
		}()
		return consume(ch, r.n)
	}
}

func threadPingPong(r *run) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	there, back := make(chan int), make(chan int)
	go func() {
		runtime.LockOSThread()
		for i := 0; i < r.n; i++ {
			back <- <-there + 1
		}
	}()
	total := 0
	for i := 0; i < r.n; i++ {
		sent := time.Now()
		there <- i
		total += <-back
		r.samples = append(r.samples, int64(time.Since(sent)))
	}
	return total
}

func turns(r *run) int {
	for i := 0; i < r.n; i++ {
		runtime.Gosched()
	}
	return total(r.n)
}

var programs = map[string]entry{
	"pipe_0":           {"make(chan int)", pipe(0), one, total, 1},
	"pipe_128":         {"make(chan int, 128)", pipe(128), one, total, 1},
	"ping_pong":        {"make(chan int)", pingPong, two, replies, 1},
	"commstime":        {"make(chan int)", commstime, four, total, 1},
	"ring":             {"make(chan int)", ring, one, one, 1},
	"sieve":            {"make(chan int)", sieve, sieveMessages, sievePrimes, 1},
	"fan_in":           {"make(chan int)", fanIn, one, total, 1},
	"recv_ready":       {"<-ch", selectReady(1, select1), one, total, 1},
	"select2_ready":    {"select", selectReady(2, select2), one, total, 1},
	"select4_ready":    {"select", selectReady(4, select4), one, total, 1},
	"select100_ready":  {"reflect.Select", selectReady(100, selectAny), one, total, 1},
	"recv_parked":      {"<-ch", selectParked(1, select1), one, total, 1},
	"select2_parked":   {"select", selectParked(2, select2), one, total, 1},
	"select4_parked":   {"select", selectParked(4, select4), one, total, 1},
	"select100_parked": {"reflect.Select", selectParked(100, selectAny), one, total, 1},
	"selecting_10":     {"reflect.Select in a loop", selecting(10), one, total, 1},
	"selecting_1000":   {"reflect.Select in a loop", selecting(1000), one, total, 0.02},
	"spawn_join":       {"go, WaitGroup", spawnJoin, one, total, 1},
	"thread_pipe_0":    {"goroutines locked to threads", onThreads(0), one, total, 1},
	"thread_pipe_128":  {"goroutines locked to threads", onThreads(128), one, total, 1},
	"thread_ping_pong": {"goroutines locked to threads", threadPingPong, two, replies, 1},
	"floor_switch":     {"runtime.Gosched", turns, one, total, 1},
}
