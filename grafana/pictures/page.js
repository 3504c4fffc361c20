/** `model` in (layout.py): texts, colours and places; the page out. ECharts draws the lines. */
const add = (parent, tag, className = '', text = '', style = {}) => {
  const made = parent.appendChild(document.createElement(tag));
  Object.assign(made, { className, textContent: text });
  Object.assign(made.style, style);
  return made;
};

/** What has no room in the box is left out of the list in it, and how much that is said. */
const fit = (box, list) => {
  const note = add(box, 'div', 'more');
  for (let left = 1; box.scrollHeight > box.clientHeight && list.childElementCount > 1; left += 1) {
    list.lastChild.remove();
    note.textContent = `${left} more`;
  }
};

const stat = (section, { tiles }) => {
  const grid = add(section, 'div', 'tiles');
  grid.style.setProperty('--letters', Math.max(...tiles.map(({ text }) => text.length)));
  for (const { name, text, color } of tiles) {
    const tile = add(grid, 'div', 'tile');
    add(tile, 'span', '', name);
    add(tile, 'b', '', text, { color });
  }
};

const bargauge = (section, { bars }) => {
  const grid = add(section, 'div', 'bars');
  for (const { name, text, color, share } of bars) {
    const row = add(grid, 'div', 'bar');
    add(row, 'span', 'name', name);
    add(add(row, 'div', 'track'), 'div', 'fill', '', { background: color, width: `${share * 100}%` });
    add(row, 'span', 'number', text, { color });
  }
  fit(section, grid);
};

const table = (section, { head, rows }) => {
  const grid = add(section, 'table');
  for (const cells of [head, ...rows]) {
    const line = add(grid, 'tr');
    cells.forEach(({ text, color }, at) => add(line, 'td', head[at].number ? 'number' : '', text, { color }));
  }
  fit(section, grid);
};

const axis = (low, high, marks, color) => {
  const customValues = marks.map(([value]) => value);
  const formatter = (value) => marks.find(([mark]) => Math.abs(mark - value) <= 1e-9 * Math.abs(value))?.[1] ?? '';
  return {
    type: 'value', min: low, max: high, axisLine: { show: false }, axisTick: { show: false, customValues },
    axisLabel: { customValues, formatter, color: '#9fa7b3', fontFamily: 'Inter', fontSize: 11 },
    splitLine: { customValues, lineStyle: { color } },
  };
};

const timeseries = (section, { series, stacked, fill, line, x, y, limits, legend }) => {
  const [start, end, step] = model.range;
  const chart = add(section, 'div', 'chart');
  const legends = add(section, 'div', 'legends');
  const box = add(legends, 'div', 'legend');
  for (const { name, color, numbers } of legend) {
    const entry = add(box, 'div', numbers.length ? 'entry values' : 'entry');
    add(entry, 'i', '', '', { background: color });
    add(entry, 'span', 'name', name);
    for (const number of numbers) add(entry, 'span', 'number', number);
  }
  fit(legends, box);
  const label = { position: 'top', distance: 3, fontFamily: 'Inter', fontSize: 11, fontWeight: 500 };
  const areas = model.regions.map(({ from, to, text, color }) => [
    { xAxis: from, name: text, itemStyle: { color, opacity: 0.18 }, label: { ...label, color } }, { xAxis: to },
  ]);
  const dashes = limits.map(({ value, color }) => ({ yAxis: value, lineStyle: { color, type: [8, 6], width: 1.5 } }));
  echarts.init(chart, null, { renderer: 'svg' }).setOption({
    animation: false,
    grid: { left: 4, right: 14, top: areas.length ? 20 : 8, bottom: 2, containLabel: true },
    xAxis: axis(start, end, x, '#1f2229'),
    yAxis: axis(y[0][0], y.at(-1)[0], y, '#25272e'),
    series: series.map(({ color, values }, index) => ({
      type: 'line', symbol: 'none', stack: stacked ? 'all' : undefined,
      data: values.map((value, at) => [start + at * step, value]),
      lineStyle: { color, width: line }, areaStyle: { color, opacity: fill },
      markLine: { symbol: 'none', label: { show: false }, data: index ? [] : dashes },
      markArea: { data: index ? [] : areas },
    })),
  });
};

document.fonts.load('12px Inter').then(() => {
  const head = add(document.body, 'header');
  add(head, 'b', '', model.title);
  for (const [name, value] of model.choices) add(add(head, 'span', '', name), 'i', '', value);
  add(head, 'span', 'time', model.time);
  for (const panel of model.panels) {
    const [left, top, width, height] = ['left', 'top', 'width', 'height'].map((side) => `${panel[side]}px`);
    const section = add(document.body, 'section', panel.kind, '', { left, top, width, height });
    add(section, 'h2', '', panel.title);
    if ('empty' in panel) add(section, 'div', 'empty', panel.empty);
    else if (panel.kind !== 'row') ({ stat, bargauge, table, timeseries })[panel.kind](section, panel);
  }
});
