package main

// What benches/scale_child.py measures, with goroutines and Go's channels: the same arguments, the same answers.

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	warmUp = 10_000 // communications before the clock starts, at the least
	tick   = time.Millisecond
)

type answer map[string]any

// rounds is how often a token goes round n processes before the clock starts, and while it runs.
func rounds(n, communications int) (warm, timed int) {
	return max(1, warmUp/n), max(1, communications/n)
}

func node(in <-chan int, out chan<- int, laps int) {
	for i := 0; i < laps; i++ {
		out <- <-in + 1
	}
}

// lap sends a token round once, and says whether it came to every node.
func lap(out chan<- int, in <-chan int, nodes int) {
	out <- 1
	if token := <-in; token != nodes {
		panic(fmt.Sprintf("the token came back as %d, expected %d", token, nodes))
	}
}

func timedLaps(out chan<- int, in <-chan int, nodes, warm, timed int) answer {
	for i := 0; i < warm; i++ {
		lap(out, in, nodes)
	}
	cpu, began := processorTime(), time.Now()
	for i := 0; i < timed; i++ {
		lap(out, in, nodes)
	}
	elapsed, used := time.Since(began), processorTime()-cpu
	lap(out, in, nodes) // in which the nodes end
	communications := float64(nodes * timed)
	return answer{"ns": float64(elapsed) / communications, "cpu": float64(used) / communications}
}

// scaleRing is one token that goes round n processes.
func scaleRing(n, communications int) answer {
	warm, timed := rounds(n, communications)
	done := make(chan answer)
	first := make(chan int)
	in := first
	for i := 1; i < n; i++ {
		out := make(chan int)
		go node(in, out, warm+timed+1)
		in = out
	}
	go func() { done <- timedLaps(first, in, n, warm, timed) }()
	return <-done
}

// parkAll starts n goroutines that wait for a value, and returns when all of them wait.
func parkAll(n int, channel func() chan int) (release func()) {
	var started atomic.Int64
	chs := make([]chan int, n)
	for i := range chs {
		ch := channel()
		chs[i] = ch
		go func() {
			started.Add(1)
			<-ch
		}()
	}
	for int(started.Load()) < n {
		time.Sleep(tick)
	}
	return func() {
		for _, ch := range chs {
			ch <- 0
		}
	}
}

// scaleCrowd is a token between two processes, while n - 2 others wait.
func scaleCrowd(n, communications int) answer {
	shared := make(chan int)
	release := parkAll(n-2, func() chan int { return shared })
	found := scaleRing(2, communications)
	release()
	return found
}

// resident is the memory that this process occupies, in bytes; the most it ever did where the system tells no more.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
				kilobytes, _ := strconv.ParseInt(fields[1], 10, 64)
				return kilobytes * 1024
			}
		}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return usage.Maxrss
	}
	return usage.Maxrss * 1024
}

// scaleMemory is bytes per goroutine that waits: on one channel for all of them, or each on its own.
func scaleMemory(n int, own bool) answer {
	shared := make(chan int)
	before := resident()
	release := parkAll(n, func() chan int {
		if own {
			return make(chan int)
		}
		return shared
	})
	bytes := float64(resident()-before) / float64(n)
	release()
	return answer{"bytes": bytes}
}

func percentiles(samples []int64) []int64 {
	if len(samples) == 0 {
		return nil
	}
	sort.Slice(samples, func(i, j int) bool { return samples[i] < samples[j] })
	found := []int64{}
	for _, p := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		found = append(found, samples[min(int(float64(len(samples))*p), len(samples)-1)])
	}
	return found
}

// scaleLatency is how late ticks of a millisecond are told to a goroutine that sleeps, and how long a round trip takes.
func scaleLatency(milliseconds int, chatty bool) answer {
	var stop atomic.Bool
	there, back := make(chan int), make(chan int)
	ended := make(chan []int64, 1)
	if chatty {
		go func() {
			for value := range there {
				back <- value
			}
		}()
		go func() {
			samples := []int64{}
			for !stop.Load() {
				sent := time.Now()
				there <- 1
				<-back
				samples = append(samples, int64(time.Since(sent)))
			}
			close(there)
			ended <- samples
		}()
	} else {
		ended <- nil
	}
	late := []int64{}
	for deadline, i := time.Now(), 0; i < milliseconds; i++ {
		deadline = deadline.Add(tick)
		time.Sleep(time.Until(deadline))
		late = append(late, int64(time.Since(deadline)))
	}
	stop.Store(true)
	return answer{"sleep": percentiles(late), "round_trip": percentiles(<-ended)}
}

// scale performs one measurement, given as benches/scale_child.py is.
func scale(words []string) (answer, error) {
	if len(words) != 3 {
		return nil, fmt.Errorf("--scale needs a measurement, a number and a third word")
	}
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return nil, err
	}
	switch words[0] {
	case "memory":
		return scaleMemory(n, words[2] == "own"), nil
	case "latency":
		return scaleLatency(n, words[2] == "chatty"), nil
	}
	communications, err := strconv.Atoi(words[2])
	if err != nil {
		return nil, err
	}
	switch words[0] {
	case "ring":
		return scaleRing(n, communications), nil
	case "crowd":
		return scaleCrowd(n, communications), nil
	}
	return nil, fmt.Errorf("no measurement %q", words[0])
}
