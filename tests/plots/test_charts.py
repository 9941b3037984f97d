"""Charts are well-formed XML whatever names they show."""

import xml.etree.ElementTree as ElementTree

import pytest

from mrmt3.plots import charts, html_page

NAME = 'a <b> & "c" \x01\u202e é'  # a file may be called so
SHOWN = r'a <b> & "c" \x01\u202e é'
CHARTS = {
  'scatter': charts.leakage_scatter({NAME: [(NAME, 1, 2)]}),
  'curves': charts.curves({NAME: {NAME: 0.5}}, [NAME], NAME, NAME),
  'strips': charts.strips({NAME: [(NAME, 0.5)]}, NAME),
  'bars': charts.bars({NAME: [0.5, None]}, NAME),
  'heat map': charts.heat_map([[1, 2]], [NAME], [NAME, 'missed'], 'missed', NAME),
  'frontier': charts.frontier({NAME: [(NAME, 0.5, 0.5)]}, NAME, NAME),
}


@pytest.mark.parametrize('kind', CHARTS)
def test_names_are_escaped(kind):
  root = ElementTree.fromstring(CHARTS[kind])
  assert root.tag == 'svg' and any(SHOWN in text for text in root.itertext())


def test_a_chart_in_a_file_of_its_own_has_its_colours():
  root = ElementTree.fromstring(charts.standalone(CHARTS['strips'], html_page.style()))
  namespace = '{http://www.w3.org/2000/svg}'
  assert root.tag == f'{namespace}svg' and root[0].tag == f'{namespace}style'
  assert '.s5.again {' in root[0].text and '"Segoe UI"' in root[0].text
