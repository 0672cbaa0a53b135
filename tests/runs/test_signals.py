"""Ctrl-C and SIGTERM stop at once, or are noted until the step is done."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from tfp_flowvae.runs.signals import SignalWatch, Stopped


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_stops_at_once_and_gives_the_status(number, status, name):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, SignalWatch():
        send(number)
    assert (caught.value.status, caught.value.name) == (status, name)
    assert signal.getsignal(number) is before


def test_a_signal_whose_exception_is_lost_stops_before_the_next_step():
    with SignalWatch() as watch:
        with contextlib.suppress(BaseException):
            send(signal.SIGTERM)
        with pytest.raises(Stopped) as caught, watch.waiting():
            pytest.fail("the training begins")
    assert caught.value.status == 143


def test_the_first_signal_while_waiting_takes_effect_at_the_end():
    done = []

    def work(watch):
        with watch.waiting():
            assert not watch.noted
            send(signal.SIGTERM)
            assert watch.noted
            done.append(True)

    with SignalWatch() as watch, pytest.raises(Stopped) as caught:
        work(watch)
    assert done
    assert caught.value.status == 143


def test_the_second_signal_while_waiting_stops_at_once():
    done = []

    def work(watch):
        with watch.waiting():
            send(signal.SIGINT)
            send(signal.SIGTERM)
            done.append(True)

    with SignalWatch() as watch, pytest.raises(Stopped) as caught:
        work(watch)
    assert not done
    assert caught.value.status == 143


def test_an_error_while_a_signal_is_noted_is_raised():
    def work(watch):
        with watch.waiting():
            send(signal.SIGINT)
            raise ValueError("mine")

    with SignalWatch() as watch, pytest.raises(ValueError, match="mine"):
        work(watch)


def test_in_another_thread_it_does_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with SignalWatch() as watch, watch.waiting():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_handlers_replaced_by_native_code_are_installed_again():
    # TensorFlow does this with SIGTERM when it joins a cluster; Python does not notice.
    ignored = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)
    with SignalWatch() as watch:
        with watch.left_to_the_system():
            ctypes.CDLL(None).signal(signal.SIGTERM, ignored)
            send(signal.SIGTERM)
        with pytest.raises(Stopped):
            send(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_left_to_the_system_ends_a_process_waiting_in_native_code(number):
    code = (
        "import ctypes; from tfp_flowvae.runs.signals import SignalWatch\n"
        "with SignalWatch() as watch, watch.left_to_the_system():\n"
        "    print('waiting', flush=True)\n"
        "    ctypes.CDLL(None).sleep(60)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
