"use strict";
(() => {
  const map = document.getElementById("map");
  const cell = document.getElementById("cell");
  const decoded = document.getElementById("decoded");
  const place = document.getElementById("place");
  const numbers = (text) => text.split(" ").map(Number);
  const cells = Number(map.dataset.cells);
  const [left, top, width, height] = numbers(map.dataset.frame);
  const x = numbers(map.dataset.x), y = numbers(map.dataset.y);
  let column = cells >> 1, row = cells >> 1;

  function within(value) {
    return Math.min(cells - 1, Math.max(0, Math.floor(value)));
  }

  function show() {
    const at = (range, share) => (range[0] + (range[1] - range[0]) * share).toFixed(2);
    const where = `(${at(x, (column + 0.5) / cells)}, ${at(y, 1 - (row + 0.5) / cells)})`;
    decoded.style.backgroundPosition = `${100 * column / (cells - 1)}% ${100 * row / (cells - 1)}%`;
    decoded.setAttribute("aria-label", `The image decoded from ${where}`);
    cell.style.left = `${left + width * column / cells}%`;
    cell.style.top = `${top + height * row / cells}%`;
    return where;
  }

  function move(newColumn, newRow) {
    column = within(newColumn);
    row = within(newRow);
    place.textContent = `Decoded from ${show()}.`;
  }

  function follow(event) {
    const box = map.getBoundingClientRect();
    const across = 100 * (event.clientX - box.left) / box.width;
    const down = 100 * (event.clientY - box.top) / box.height;
    move(cells * (across - left) / width, cells * (down - top) / height);
  }

  cell.style.width = `${width / cells}%`;
  cell.style.height = `${height / cells}%`;
  show();
  map.addEventListener("pointermove", follow);
  map.addEventListener("pointerdown", follow);
  map.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (step) {
      event.preventDefault();
      move(column + step[0], row + step[1]);
    }
  });
})();
